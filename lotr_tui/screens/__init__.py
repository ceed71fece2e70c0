"""Screens of the app, one package per screen."""
