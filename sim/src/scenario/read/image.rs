use super::super::fields::Fields;
use super::super::keys;
use super::super::model::{Call, Crash, FindHost, HttpRoute, Image, Span, StreamClient};
use super::super::tree::Item;
use super::Reader;
use kubesim_actors::objects::Name;
use std::collections::BTreeMap;
use std::time::Duration;

impl Reader<'_> {
    pub fn images(&self, top: Fields<'_>) -> BTreeMap<Name, Image> {
        let mut images = BTreeMap::new();
        for entry in top.entries("image") {
            let name = Name::from(entry.key.as_str());
            images.insert(name.clone(), self.image(name, &entry.item));
        }
        images
    }

    fn image(&self, name: Name, item: &Item) -> Image {
        let f = Fields::open(self.log, item, &[&keys::IMAGE]);
        let span = |key, millis| f.span(key).unwrap_or(Span::exact(Duration::from_millis(millis)));
        Image {
            name,
            pull: span("pull", 1000),
            start: span("start", 100),
            stop: span("stop", 50),
            tcp: f.ports("tcp"),
            udp: f.ports("udp"),
            http: f.tables("http").iter().map(|item| self.http(item)).collect(),
            streams: f.tables("stream").iter().map(|item| self.stream(item)).collect(),
            crash: f.item("crash").and_then(|item| self.crash(item)),
        }
    }

    fn http(&self, item: &Item) -> HttpRoute {
        let f = Fields::open(self.log, item, &[&keys::HTTP]);
        let calls = f.tables("calls").iter();
        HttpRoute {
            port: f.port("port").unwrap_or(80),
            path: Name::from(f.text("path").unwrap_or("/")),
            status: f.int("status", 100..=599).map_or(200, |status| status as u16),
            delay: f.span("delay").unwrap_or(Span::exact(Duration::from_millis(1))),
            text: Name::from(f.text("text").unwrap_or_default()),
            calls: calls
                .map(|item| self.call(Fields::open(self.log, item, &[&keys::CALL])))
                .collect(),
        }
    }

    fn call(&self, f: Fields<'_>) -> Call {
        f.required("port");
        let find = match f.text("find") {
            None | Some("dns") => FindHost::Dns,
            Some("env") => FindHost::Env,
            Some(text) => match text.strip_prefix('$').filter(|name| !name.is_empty()) {
                Some(variable) => FindHost::Variable(Name::from(variable)),
                None => {
                    self.log.unknown(
                        f.place("find"),
                        "way to find a host",
                        text,
                        ["env", "dns", "$VARIABLE"],
                    );
                    FindHost::Dns
                }
            },
        };
        Call { host: f.required_name("host"), port: f.port("port").unwrap_or_default(), find }
    }

    fn stream(&self, item: &Item) -> StreamClient {
        let f = Fields::open(self.log, item, &[&keys::STREAM]);
        let every = f.duration("every").unwrap_or(Duration::from_millis(100));
        self.often(f, every);
        StreamClient { to: self.call(f), every }
    }

    fn crash(&self, item: &Item) -> Option<Crash> {
        let f = Fields::open(self.log, item, &[&keys::CRASH]);
        f.required("after")?;
        Some(Crash {
            after: f.span("after")?,
            code: f.int("code", 0..=255).map_or(1, |code| code as i32),
            times: f.u32("times", 0),
        })
    }
}
