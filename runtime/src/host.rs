//! The production host: one generic actix actor per component.
