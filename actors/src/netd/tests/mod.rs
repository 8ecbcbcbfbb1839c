mod convergence;
mod plans;
mod stories;
mod world;
