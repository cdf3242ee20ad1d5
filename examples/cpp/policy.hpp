// A gipo artifact in C++: one file, one class. Reads the manifest, replays the golden vectors, samples actions.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace gipo {

// What the policy chose, for the robot and for its log. `latent` is the token, or the value before squashing.
struct Decision {
  std::vector<float> action, deterministic_action, log_prob;
  std::vector<double> latent;
};

class Policy {
 public:
  // Loads the file and replays its golden vectors; throws std::exception when it must not drive a robot. Run
  // `gipo-deploy check --require-id ID FILE` once on the machine as well: it also checks the file's bytes.
  explicit Policy(const std::string& path)
      : env_(silent()), session_(env_, path.c_str(), options()), manifest_(read_manifest()) {
    if (manifest_.at("schema") > kSchema) throw std::runtime_error("the manifest's schema is newer than this controller");
    if (!manifest_.value("vision", nlohmann::json()).is_null()) {
      throw std::runtime_error("the policy sees a camera, which this controller does not have");
    }
    require_within("control_rate_hz", 0, kMostHz);
    if (rate_hz() == 0) throw std::runtime_error("the manifest's control_rate_hz is 0");
    require_within("rounding", 0, kMostRounding);
    tokens_ = manifest_.at("family") == "token";
    inputs_ = manifest_.at("observation_names").size();
    actions_ = manifest_.at("action_names").size();
    replay_golden_vectors();
  }

  double rate_hz() const { return manifest_.at("control_rate_hz"); }
  std::size_t observation_size() const { return inputs_; }
  const nlohmann::json& manifest() const { return manifest_; }

  // One decision. The observation is raw, in the manifest's order and units; the normaliser is in the graph.
  Decision act(const std::vector<float>& observation, std::mt19937_64& generator) {
    std::vector<float> noise(actions_);
    std::normal_distribution<float> normal;
    for (float& value : noise) {
      // 24 random bits make a float below 1; uniform_real_distribution may round up to 1.
      value = tokens_ ? static_cast<float>(generator() >> 40) * 0x1p-24f : normal(generator);
    }
    return evaluate(observation, noise);
  }

  Decision evaluate(std::vector<float> observation, std::vector<float> noise) {
    if (observation.size() != inputs_ || noise.size() != actions_) throw std::invalid_argument("wrong input size");
    for (float value : observation) {
      if (!std::isfinite(value)) throw std::invalid_argument("the observation is not finite");
    }
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    std::array<Ort::Value, 2> given{tensor(memory, observation), tensor(memory, noise)};
    auto found = session_.Run(Ort::RunOptions{}, kInputs.data(), given.data(), given.size(), kOutputs.data(),
                              kOutputs.size());
    Decision decision{numbers<float>(found[0]), numbers<float>(found[1]), numbers<float>(found[3]), {}};
    if (tokens_) {
      const auto latent = numbers<std::int64_t>(found[2]);
      decision.latent.assign(latent.begin(), latent.end());
    } else {
      const auto latent = numbers<float>(found[2]);
      decision.latent.assign(latent.begin(), latent.end());
    }
    return decision;
  }

 private:
  static constexpr int kSchema = 5;  // the newest that is understood
  static constexpr double kMostHz = 100000;
  static constexpr double kMostRounding = 1e-3;  // beyond it float32 does not describe the policy any more
  static constexpr std::array<const char*, 2> kInputs{"observation", "noise"};
  static constexpr std::array<const char*, 4> kOutputs{"action", "deterministic_action", "latent", "log_prob"};

  // From 1.29 on ONNX Runtime reports what it loads to its makers, unless this says no before its first use.
  static Ort::Env silent() {
    setenv("ORT_DISABLE_TELEMETRY", "1", 0);
    return Ort::Env(ORT_LOGGING_LEVEL_ERROR, "gipo");
  }

  static Ort::SessionOptions options() {
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);  // more threads have a longer tail
    options.SetGraphOptimizationLevel(ORT_ENABLE_ALL);
    return options;
  }

  nlohmann::json read_manifest() {
    Ort::AllocatorWithDefaultOptions allocator;
    auto text = session_.GetModelMetadata().LookupCustomMetadataMapAllocated("gipo.manifest", allocator);
    if (!text) throw std::runtime_error("the file has no gipo manifest");
    return nlohmann::json::parse(text.get());
  }

  void require_within(const std::string& key, double low, double high) const {
    const double value = manifest_.at(key);
    if (!(value >= low && value <= high)) {  // written so that NaN fails
      throw std::runtime_error("the manifest's " + key + " is " + std::to_string(value) + ", not within " +
                               std::to_string(low) + " to " + std::to_string(high));
    }
  }

  // The tolerances of deploy/runtime/golden.py.
  void replay_golden_vectors() {
    const auto& golden = manifest_.at("golden");
    if (golden.at("observation").empty()) throw std::runtime_error("the manifest has no golden vectors");
    const bool exact = manifest_.at("precision") == "float32";
    const double bits = std::max(1e-5, 10 * manifest_.at("rounding").get<double>());
    const double latent = tokens_ ? (exact ? 0 : 1) : (exact ? bits : 3e-2);
    const double bins = manifest_.at("parameters_per_dimension").get<double>() - 1;
    const double share = tokens_ ? 1e-6 + latent * 2 / bins : latent;  // of half the action's range
    const auto low = manifest_.at("action_low").get<std::vector<double>>();
    const auto high = manifest_.at("action_high").get<std::vector<double>>();
    for (std::size_t row = 0; row < golden.at("observation").size(); ++row) {
      const auto found = evaluate(golden.at("observation")[row], golden.at("noise")[row]);
      for (std::size_t i = 0; i < actions_; ++i) {
        const double action = share * (high.at(i) - low.at(i)) / 2;
        require(golden, "action", row, i, found.action[i], action);
        require(golden, "deterministic_action", row, i, found.deterministic_action[i], action);
        require(golden, "latent", row, i, found.latent[i], latent);
        require(golden, "log_prob", row, i, found.log_prob[i], exact ? 10 * bits : 1e-1);
      }
    }
  }

  static void require(const nlohmann::json& golden, const std::string& name, std::size_t row, std::size_t i,
                      double found, double allowed) {
    const double expected = golden.at(name)[row][i];
    if (!(std::abs(found - expected) <= allowed + 1e-6 * std::abs(expected))) {  // written so that NaN fails
      throw std::runtime_error("golden vector " + std::to_string(row) + ": " + name + " is " + std::to_string(found) +
                               ", the manifest says " + std::to_string(expected));
    }
  }

  Ort::Value tensor(const Ort::MemoryInfo& memory, std::vector<float>& values) const {
    const std::array<std::int64_t, 2> shape{1, static_cast<std::int64_t>(values.size())};
    return Ort::Value::CreateTensor<float>(memory, values.data(), values.size(), shape.data(), shape.size());
  }

  // One number for each action, or nothing: a graph that gives fewer must not be read past its end.
  template <typename Number>
  std::vector<Number> numbers(const Ort::Value& value) const {
    if (value.GetTensorTypeAndShapeInfo().GetElementCount() != actions_) {
      throw std::runtime_error("the graph does not give one number for each action of the manifest");
    }
    const auto* data = value.GetTensorData<Number>();
    return {data, data + actions_};
  }

  Ort::Env env_;
  Ort::Session session_;
  nlohmann::json manifest_;
  bool tokens_ = false;
  std::size_t inputs_ = 0, actions_ = 0;
};

}  // namespace gipo
