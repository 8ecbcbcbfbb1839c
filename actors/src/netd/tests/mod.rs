mod convergence;
mod stories;
mod world;
