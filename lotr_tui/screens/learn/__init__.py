"""The class: one screen per chapter, with a live figure, a task and the code behind it."""
