//! A line of a container's log as a runtime of the CRI writes it (kubernetes
//! `design-proposals/node/kubelet-cri-logging.md`, read by `pkg/kubelet/kuberuntime/logs/logs.go`):
//! `2016-10-06T00:17:09.669794202Z stdout F what was said`, where `P` in place of `F` says that the
//! line goes on in the next one.

use k8s_openapi::jiff::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// As the runtime wrote it.
    pub time: &'a str,
    /// With the end of the line, if it ends.
    pub said: &'a [u8],
}

impl<'a> Line<'a> {
    /// Of a line with its end.
    pub fn read(line: &'a [u8]) -> Option<Line<'a>> {
        let (time, rest) = word(line)?;
        let (stream, rest) = word(rest)?;
        let (tags, said) = word(rest)?;
        let time = std::str::from_utf8(time).ok().filter(|time| at(time).is_some())?;
        if ![&b"stdout"[..], b"stderr"].contains(&stream) {
            return None;
        }
        let goes_on = tags.split(|byte| *byte == b':').next() == Some(b"P");
        let said = if goes_on { said.strip_suffix(b"\n").unwrap_or(said) } else { said };
        Some(Line { time, said })
    }

    /// Whether it was said then or later.
    pub fn is_since(&self, since: Timestamp) -> bool {
        at(self.time).is_some_and(|at| at >= since)
    }
}

pub fn at(time: &str) -> Option<Timestamp> {
    time.parse().ok()
}

fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = text.iter().position(|byte| *byte == b' ')?;
    Some((&text[..space], &text[space + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIME: &str = "2026-11-28T06:17:09.669794202+01:00";

    #[test]
    fn a_line_says_when_and_what() {
        let read = |text: &str| {
            let text = text.as_bytes().to_owned();
            Line::read(&text).map(|line| String::from_utf8_lossy(line.said).into_owned())
        };
        assert_eq!(read(&format!("{TIME} stdout F a b\n")).as_deref(), Some("a b\n"));
        assert_eq!(read(&format!("{TIME} stderr P a \n")).as_deref(), Some("a "));
        assert_eq!(read(&format!("{TIME} stderr P:x a\n")).as_deref(), Some("a"));
        assert_eq!(read(&format!("{TIME} stdout F \n")).as_deref(), Some("\n"));
        assert_eq!(read(&format!("{TIME} stdin F a\n")), None);
        assert_eq!(read("yesterday stdout F a\n"), None);
        assert_eq!(read(&format!("{TIME} stdout\n")), None);
        let text = format!("{TIME} stdout F a\n");
        let line = Line::read(text.as_bytes()).expect("a line");
        let then = |text: &str| line.is_since(at(text).expect("a time"));
        assert!(then("2026-11-28T05:17:09.669794202Z") && !then("2026-11-28T05:17:10Z"));
    }

    proptest! {
        #[test]
        fn what_is_no_line_is_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Line::read(&bytes);
        }

        #[test]
        fn what_was_said_comes_back(said in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut text = format!("{TIME} stdout F ").into_bytes();
            text.extend(&said);
            prop_assert_eq!(Line::read(&text).map(|line| line.said), Some(&said[..]));
        }
    }
}
