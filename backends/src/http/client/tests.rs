//! Calls as requests, answers as replies, views from events.
