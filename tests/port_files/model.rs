//! The files of a node in the simulator.

use crate::world::World;
use kubesim_actors::ports::files::{Reply, Request};
use kubesim_sim::models::files::{Files, Watcher};

const ASKER: Watcher = 1;

#[derive(Default)]
pub struct Model {
    files: Files,
    told: Vec<(String, Option<String>)>,
}

impl Model {
    fn tell(&mut self, news: Vec<(Watcher, Reply)>) {
        for (_, reply) in news {
            let Reply::Content { path, content } = reply else { panic!("{reply:?}") };
            self.told.push((path.to_string(), content.map(|content| content.to_string())));
        }
    }
}

impl World for Model {
    fn ask(&mut self, request: Request) -> Reply {
        let mut replies = self.files.request(&request, ASKER);
        let (_, answer) = replies.remove(0);
        self.tell(replies);
        answer
    }

    fn watch(&mut self, path: &str) {
        let news = self.files.request(&Request::Watch { path: path.into() }, ASKER);
        self.tell(news);
    }

    fn news(&mut self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut self.told)
    }

    fn write_in_place(&mut self, path: &str, content: &str) {
        let news = self.files.write_in_place(path, content.into());
        self.tell(news);
    }

    fn truncate(&mut self, path: &str) {
        let news = self.files.truncate(path);
        self.tell(news);
    }

    fn rename_over(&mut self, path: &str, content: &str) {
        let news = self.files.rename_over(path, content.into());
        self.tell(news);
    }

    fn symlink(&mut self, path: &str, target: &str) {
        let news = self.files.symlink_to(path, target);
        self.tell(news);
    }

    fn make_directory(&mut self, path: &str) {
        let news = self.files.make_directory(path);
        self.tell(news);
    }

    fn remove(&mut self, path: &str) {
        let news = self.files.remove(path);
        self.tell(news);
    }
}
