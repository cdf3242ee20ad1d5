"""An SO-101 without the arm: a servo bus on a pseudo-terminal, whose motors are the joints of a simulated arm."""
