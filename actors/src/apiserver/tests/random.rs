//! Random writes, crashes, lost answers and late transactions against a small reference: what the
//! answers of each object's writes must have been, in the order in which they were sent.
