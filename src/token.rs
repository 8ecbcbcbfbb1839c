//! What machines join a cluster by, in one word: a bootstrap token and whose it is,
//! `ID.SECRET@sha256:HASH`. Who has that needs to trust nobody to find the right server.

use kubesim_backends::http::client::Pin;
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// `ID.SECRET`, which the server knows (kubernetes `staging/src/k8s.io/cluster-bootstrap/token/api/
/// types.go`, `BootstrapTokenPattern`), and the server's authority if the token says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub bearer: String,
    pub authority: Option<Pin>,
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Token, String> {
        let (bearer, authority) = match text.split_once('@') {
            None => (text, None),
            Some((bearer, pin)) => (bearer, Some(pin.parse()?)),
        };
        let is_word = |text: &str, length| {
            text.len() == length
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        match bearer.split_once('.') {
            Some((id, secret)) if is_word(id, 6) && is_word(secret, 16) => {
                Ok(Token { bearer: bearer.to_owned(), authority })
            }
            _ => Err("it is ID.SECRET@sha256:HASH or ID.SECRET, with 6 and 16 lower-case letters \
                      and digits"
                .to_owned()),
        }
    }
}

impl Display for Token {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.bearer)?;
        self.authority.iter().try_for_each(|pin| write!(f, "@{pin}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_read_as_it_is_written() {
        for text in ["abcdef.0123456789abcdef", &format!("a.b@sha256:{}", "0f".repeat(32))] {
            let text = text.replace("a.b", "abc123.0123456789abcdef");
            let token: Token = text.parse().expect("a token");
            assert_eq!(token.to_string(), text);
            assert_eq!(token.authority.is_some(), text.contains('@'));
        }
    }

    #[test]
    fn what_is_none_is_told() {
        let pin = format!("@sha256:{}", "0f".repeat(32));
        for text in ["", "abcdef", "abcdef.0123456789ABCDEF", "abcde.0123456789abcdef", &pin] {
            let why = text.parse::<Token>().expect_err(text);
            assert!(why.contains("ID.SECRET"), "{why}");
        }
        let why = "abcdef.0123456789abcdef@sha256:0f".parse::<Token>().expect_err("too short");
        assert!(why.contains("64 hexadecimal digits"), "{why}");
    }
}
