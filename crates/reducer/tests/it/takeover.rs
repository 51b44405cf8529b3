//! Takeovers, each history by its name.
