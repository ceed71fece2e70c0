"""Knowledge distillation: a student learns the predictions of trained models, on the corpus and on text they write."""
