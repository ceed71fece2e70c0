"""Tokenizers: conversion between texts and token ids, by words, white space, characters or byte pairs."""
