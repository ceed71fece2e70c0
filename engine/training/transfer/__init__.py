"""Transfer learning: training starts from another run, with the techniques of ULMFiT (Howard and Ruder 2018)."""
