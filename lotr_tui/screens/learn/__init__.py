"""The class: one screen per chapter, with a live figure, a task and a link to the code."""
