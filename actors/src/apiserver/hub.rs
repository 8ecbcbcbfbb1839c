//! Bookkeeping of watches for whoever serves them: who has news, and what it is.
