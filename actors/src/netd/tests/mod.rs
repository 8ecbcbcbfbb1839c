mod convergence;
mod outages;
mod plans;
mod stories;
mod world;
