//! A node's volumes in the simulator.

use crate::world::World;
use kubesim_actors::ports::volumes::{Reply, Request};
use kubesim_sim::models::volumes::Volumes;

#[derive(Default)]
pub struct Model(Volumes);

impl World for Model {
    fn ask(&mut self, request: Request) -> Option<Reply> {
        self.0.request(&request)
    }
    fn read(&self, path: &str) -> Option<String> {
        Some(String::from_utf8_lossy(&self.0.read(path)?).into_owned())
    }
    fn link(&self, path: &str) -> Option<String> {
        self.0.link(path)
    }
    fn access(&self, path: &str) -> Option<(u32, u32, u32)> {
        self.0.at(path).map(|entry| (entry.mode, entry.owner, entry.group))
    }
    fn names(&self, path: &str) -> Vec<String> {
        let all = self.0.names(path).into_iter();
        all.filter(|name| !name.starts_with("..")).collect()
    }
    fn make_directory(&mut self, path: &str) {
        self.0.make_directory(path);
    }
    fn make_file(&mut self, path: &str, content: &str) {
        self.0.make_file(path, content.as_bytes());
    }
    fn make_link(&mut self, path: &str, target: &str) {
        self.0.make_link(path, target);
    }
    fn shown(&self, path: &str) -> String {
        path.to_owned()
    }
}
