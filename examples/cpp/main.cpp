// A controller that runs a gipo artifact at its rate. Replace `observe`, `send` and `stop` by your robot's.
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>

#include "policy.hpp"

namespace {

using Clock = std::chrono::steady_clock;

std::vector<float> observe(std::size_t size) { return std::vector<float>(size, 0.5F); }

void send(const std::vector<float>& action) {
  for (float value : action) std::printf(" %.6f", value);
}

// What keeps it where it is: speed 0 to what takes speeds, the measured position to what takes positions.
void stop() { std::printf("stop\n"); }

// However control ends, by its last step, an exception or a signal, the robot is stopped.
struct StopAtTheEnd {
  ~StopAtTheEnd() {
    stop();
    std::fflush(stdout);
  }
};

// Longer than this after it was observed, what the robot should do is not known any more.
constexpr auto kStale = std::chrono::milliseconds(250);

// Tokens of parameters that are no numbers are whole, and their actions finite: the log-prob tells.
void refuse_unsafe(const gipo::Decision& decision, Clock::time_point observed) {
  for (const auto* values : {&decision.action, &decision.log_prob})
    for (float value : *values)
      if (!std::isfinite(value)) throw std::runtime_error("the policy decides what is no number");
  if (Clock::now() - observed > kStale) throw std::runtime_error("a decision took more than 250 ms");
}

volatile std::sig_atomic_t signalled = 0;
extern "C" void hear(int number) { signalled = number; }

int control(const std::string& path, int steps, std::uint64_t seed) {
  gipo::Policy policy(path);
  std::printf("%zu golden vectors replayed\n", policy.manifest().at("golden").at("observation").size());
  std::mt19937_64 generator(seed);
  const auto period = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(1 / policy.rate_hz()));
  const auto start = Clock::now();
  auto next = start;
  int late = 0, step = 0;
  // Ctrl-C, kill, a lost terminal, Ctrl-\ and Ctrl-Z: a process that is gone or suspended minds no robot.
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP}) std::signal(number, hear);
  std::signal(SIGPIPE, SIG_IGN);  // where nobody reads what is printed, printing fails, and that ends it below
  const StopAtTheEnd at_the_end;
  for (; step < steps && signalled == 0; ++step) {
    const auto observed = Clock::now();
    const auto decision = policy.act(observe(policy.observation_size()), generator);
    refuse_unsafe(decision, observed);
    std::printf("step %d action", step);
    send(decision.action);
    std::printf(" log_prob");
    for (float value : decision.log_prob) std::printf(" %.6f", value);
    std::printf("\n");
    if (std::fflush(stdout) != 0) throw std::runtime_error("nobody reads what is printed");
    // At whole periods from the start, so that one late step does not shift all that follow; what was missed is skipped,
    // not caught up in a burst.
    next += period;
    for (late += Clock::now() > next; Clock::now() > next;) next += period;
    std::this_thread::sleep_until(next);
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  std::printf("%d steps, %.2f Hz of %.2f, %d late\n", step, step / seconds, policy.rate_hz(), late);
  return signalled == 0 ? EXIT_SUCCESS : 128 + signalled;
}

// A whole number up to `most`: all of the argument, so that "1O0" is not one step.
std::uint64_t whole(const char* text, std::uint64_t most) {
  char* end = nullptr;
  errno = 0;
  const std::uint64_t found = std::strtoull(text, &end, 10);
  if (!std::isdigit(static_cast<unsigned char>(*text)) || *end != '\0' || errno != 0 || found > most)
    throw std::invalid_argument(std::string(text) + " is no whole number up to " + std::to_string(most));
  return found;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: controller FILE.onnx [STEPS [SEED]]\n";
    return 2;
  }
  try {
    const auto steps = argc > 2 ? whole(argv[2], std::numeric_limits<int>::max()) : 100;
    const auto seed = argc > 3 ? whole(argv[3], std::numeric_limits<std::uint64_t>::max()) : 0;
    return control(argv[1], static_cast<int>(steps), seed);
  } catch (const std::exception& error) {
    std::cerr << "controller: error: " << error.what() << "\n";
    return 2;
  }
}
