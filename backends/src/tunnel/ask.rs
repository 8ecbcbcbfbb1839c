//! What a server asks of a node, as a path and a query. `crate::http::nodes` writes it.

use super::logs::{self, Options};
use crate::cri::{Streams, Wanted, Which};
use hyper::Uri;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kubesim_actors::objects::{Key, Name, Uid};
use std::collections::BTreeMap;

pub enum Ask {
    Log(LogOf),
    Stream {
        pod: Uid,
        wanted: Wanted,
    },
    /// What all containers use.
    Usage,
}

pub struct LogOf {
    pub pod: Key,
    pub uid: Uid,
    pub container: String,
    pub which: Which,
    /// The one that is meant if the runtime knows none.
    pub attempt: u32,
    pub options: Options,
}

impl Ask {
    pub fn read(uri: &Uri) -> Result<Ask, String> {
        if uri.path() == "/usage" {
            return Ok(Ask::Usage);
        }
        let query = Query::read(uri.query().unwrap_or_default());
        let uid = query.one("uid");
        let uid = Uid::parse(uid).ok_or_else(|| format!("{uid:?} is no uid of a pod"))?;
        let container = || query.file_name("container");
        let wanted = match uri.path() {
            "/log" => return query.log(uid).map(Ask::Log),
            "/exec" => {
                let command = query.all("command").to_vec();
                Wanted::Exec { container: container()?, command, streams: query.streams() }
            }
            "/attach" => Wanted::Attach { container: container()?, streams: query.streams() },
            "/portforward" => Wanted::Ports,
            other => return Err(format!("this node knows nothing of {other:?}")),
        };
        Ok(Ask::Stream { pod: uid, wanted })
    }
}

struct Query(BTreeMap<String, Vec<String>>);

impl Query {
    fn read(text: &str) -> Query {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            all.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        Query(all)
    }

    fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Empty if it is not there.
    fn one(&self, name: &str) -> &str {
        self.all(name).first().map(String::as_str).unwrap_or_default()
    }

    fn says(&self, name: &str) -> bool {
        self.one(name) == "true"
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let text = self.one(name);
        let read = (!text.is_empty()).then(|| text.parse());
        read.transpose().map_err(|_| format!("{name}: {text:?} is no such number"))
    }

    /// What becomes a part of a file's path is a name and leads nowhere else.
    fn file_name(&self, name: &str) -> Result<String, String> {
        let text = self.one(name);
        match text {
            "" | "." | ".." => Err(format!("{name}: {text:?} is no name")),
            text if text.contains(['/', '\0']) => Err(format!("{name}: {text:?} is no name")),
            text => Ok(text.to_owned()),
        }
    }

    fn streams(&self) -> Streams {
        Streams {
            stdin: self.says("stdin"),
            stdout: self.says("stdout"),
            stderr: self.says("stderr"),
            tty: self.says("tty"),
        }
    }

    fn log(&self, uid: Uid) -> Result<LogOf, String> {
        let name = |text: String| Name::from(text);
        let pod = Key {
            namespace: name(self.file_name("namespace")?),
            name: name(self.file_name("pod")?),
        };
        let which = match self.one("which") {
            "current" => Which::Newest,
            "ended" => Which::Ended,
            "before" => Which::Before,
            other => return Err(format!("which: {other:?} is none")),
        };
        let seconds = self.number::<i64>("sinceSeconds")?;
        let ago = seconds.and_then(|seconds| {
            Timestamp::now().checked_sub(SignedDuration::from_secs(seconds)).ok()
        });
        let time = self.one("sinceTime");
        let time = match time {
            "" => None,
            time => Some(logs::at(time).ok_or_else(|| format!("sinceTime: {time:?} is no time"))?),
        };
        let options = Options {
            follow: self.says("follow"),
            timestamps: self.says("timestamps"),
            since: ago.or(time),
            tail: self.number("tailLines")?,
            limit: self.number("limitBytes")?,
        };
        let attempt = self.number("attempt")?.unwrap_or(0);
        let container = self.file_name("container")?;
        Ok(LogOf { pod, uid, container, which, attempt, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "uid=12345678-1234-1234-1234-123456789abc";

    fn read(words: &str) -> Result<Ask, String> {
        Ask::read(&words.parse().expect("a path"))
    }

    #[test]
    fn what_is_asked_is_read() {
        let ask = format!("/exec?{UID}&container=c&command=a+b&command=%2Fc&stdin=true&tty=true");
        let Ok(Ask::Stream { wanted, .. }) = read(&ask) else { panic!("{ask}") };
        let streams = Streams { stdin: true, tty: true, ..Streams::default() };
        let command = vec!["a b".to_owned(), "/c".to_owned()];
        assert_eq!(wanted, Wanted::Exec { container: "c".to_owned(), command, streams });
        let log = format!(
            "/log?{UID}&namespace=ns&pod=p&container=c&which=before&attempt=2&tailLines=3\
             &sinceTime=2026-11-28T06:00:00Z&follow=true"
        );
        let Ok(Ask::Log(of)) = read(&log) else { panic!("{log}") };
        assert_eq!(
            (of.pod.to_string(), of.which, of.attempt),
            ("ns/p".to_owned(), Which::Before, 2)
        );
        assert!(of.options.follow && of.options.since.is_some());
        assert_eq!((of.options.tail, of.options.limit), (Some(3), None));
    }

    #[test]
    fn nobody_is_led_out_of_the_folder_of_logs() {
        let of = |namespace: &str, pod: &str, container: &str| {
            let ask = format!("/log?{UID}&namespace={namespace}&pod={pod}&container={container}");
            read(&format!("{ask}&which=current")).is_ok()
        };
        assert!(of("a", "b", "c"));
        for wrong in ["..", "%2e%2e", "a%2Fb", "..%2F..%2Fetc", "", "a%00"] {
            assert!(
                !of(wrong, "b", "c") && !of("a", wrong, "c") && !of("a", "b", wrong),
                "{wrong}"
            );
        }
        assert!(read("/log?uid=1&namespace=a&pod=b&container=c&which=current").is_err());
        assert!(read(&format!("/run?{UID}")).is_err());
    }
}
