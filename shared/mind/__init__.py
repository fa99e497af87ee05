"""The model of the stand-in: plain code with rough general knowledge of what things cost."""
