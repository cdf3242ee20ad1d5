"""Vision-language-action policies: camera image, language and proprioception in, chunks of actions out."""
