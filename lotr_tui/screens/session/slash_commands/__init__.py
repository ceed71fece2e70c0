"""Commands that are typed into the prompt of a session, such as `/model RUN`."""
