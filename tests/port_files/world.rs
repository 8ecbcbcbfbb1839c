//! Files, somebody who asks through the files port, and somebody else who changes them.

use kubesim_actors::ports::files::{Reply, Request};
use std::collections::BTreeMap;

/// What was told last of each path.
pub type Told = BTreeMap<String, Option<String>>;

pub trait World {
    /// A request that owes one answer.
    fn ask(&mut self, request: Request) -> Reply;
    /// Begins to watch, and is told what is there.
    fn watch(&mut self, path: &str);
    /// Everything that was told since this was asked last, in order, once nothing more comes.
    fn news(&mut self) -> Vec<(String, Option<String>)>;

    /// Opened for writing and filled, as `echo … > file` does.
    fn write_in_place(&mut self, path: &str, content: &str);
    /// Opened with `O_TRUNC` and not filled yet.
    fn truncate(&mut self, path: &str);
    /// Written elsewhere and renamed.
    fn rename_over(&mut self, path: &str, content: &str);
    /// `ln -sfn target path`, in one step.
    fn symlink(&mut self, path: &str, target: &str);
    fn make_directory(&mut self, path: &str);
    fn remove(&mut self, path: &str);
}

pub trait Asking: World {
    fn read(&mut self, path: &str) -> Option<String> {
        match self.ask(Request::Read { path: path.into() }) {
            Reply::Content { content, .. } => content.map(|content| content.to_string()),
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, path: &str, content: &str) -> Result<(), String> {
        let (path, content) = (path.into(), content.into());
        self.written(Request::Write { path, content })
    }

    fn delete(&mut self, path: &str) -> Result<(), String> {
        self.written(Request::Remove { path: path.into() })
    }

    fn written(&mut self, request: Request) -> Result<(), String> {
        match self.ask(request) {
            Reply::Written { result, .. } => result.map_err(|why| why.to_string()),
            other => panic!("{other:?}"),
        }
    }

    /// What changed since this was asked last. Nothing is told twice.
    fn shows(&mut self, expected: &[(&str, Option<&str>)]) {
        let news = self.news();
        let mut told = Told::new();
        for (path, content) in &news {
            let again = told.insert(path.clone(), content.clone());
            assert_ne!(again.as_ref(), Some(content), "told twice: {news:?}");
        }
        let owned = |(path, content): &(&str, Option<&str>)| {
            ((*path).to_owned(), content.map(str::to_owned))
        };
        assert_eq!(told, expected.iter().map(owned).collect::<Told>(), "{news:?}");
    }
}

impl<W: World> Asking for W {}
