//! A machine, somebody who asks through the volumes port, and what a pod sees of it.

use kubesim_actors::ports::volumes::{Part, Reply, Request, Volume};
use smol_str::SmolStr;

pub trait World {
    /// `None`: nothing is said.
    fn ask(&mut self, request: Request) -> Option<Reply>;

    // Absolute paths of the machine.

    /// Through links.
    fn read(&self, path: &str) -> Option<String>;
    fn link(&self, path: &str) -> Option<String>;
    /// Permissions, owner and group of what is there.
    fn access(&self, path: &str) -> Option<(u32, u32, u32)>;
    /// The names in a directory that a user is meant to see, in order.
    fn names(&self, path: &str) -> Vec<String>;
    fn make_directory(&mut self, path: &str);
    fn make_file(&mut self, path: &str, content: &str);
    fn make_link(&mut self, path: &str, target: &str);
    /// What a path of the machine is called in answers.
    fn shown(&self, path: &str) -> String;
}

pub trait Asking: World {
    /// Where the volume is, or why not.
    #[track_caller]
    fn ready(&mut self, volume: &Volume, request: Request) -> Result<String, String> {
        match self.ask(request) {
            Some(Reply::Ready { pod, volume: name, result }) => {
                assert_eq!((pod, &name), (volume.pod, &volume.name));
                result.map(String::from).map_err(String::from)
            }
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn part(&mut self, part: &Part, path: &str) -> Result<String, String> {
        let path = SmolStr::from(path);
        match self.ask(Request::Part { part: part.clone(), path }) {
            Some(Reply::Part { pod, container, index, result }) => {
                let told = (pod, &container, index);
                assert_eq!(told, (part.pod, &part.container, part.index));
                result.map(String::from).map_err(String::from)
            }
            other => panic!("{other:?}"),
        }
    }
}

impl<W: World> Asking for W {}
