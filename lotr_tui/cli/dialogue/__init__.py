"""Commands of models that know speakers: answers, scenes, and who would say a text."""
