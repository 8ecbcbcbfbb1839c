//! Formats of texts (kube-openapi `pkg/validation/strfmt`): those that are said of Kubernetes'
//! objects. One that is not known says nothing, as upstream has it; so do here `isbn`,
//! `creditcard`, `ssn`, `bsonobjectid`.

use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::civil::Date;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether a text is of a format; `None`: it is not known.
pub fn holds(format: &str, text: &str) -> Option<bool> {
    Some(match format {
        "password" => true,
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<IpNet>().is_ok(),
        "mac" => mac(text),
        "date" => text.parse::<Date>().is_ok() && text.len() == "2006-01-02".len(),
        "date-time" | "datetime" => text.parse::<Timestamp>().is_ok(),
        "duration" => duration(text),
        "byte" => base64(text),
        "uuid" => uuid(text, |_, _| true),
        "uuid3" => uuid(text, |version, _| version == b'3'),
        "uuid4" => uuid(text, |version, variant| version == b'4' && is_variant(variant)),
        "uuid5" => uuid(text, |version, variant| version == b'5' && is_variant(variant)),
        "hostname" => hostname(text),
        "email" => email(text),
        "uri" => uri(text),
        "hexcolor" => hex_color(text),
        _ => return None,
    })
}

fn mac(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let bytes: Vec<&str> = text.split(separator).collect();
    let byte = |part: &&str| part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit());
    [6, 8, 20].contains(&bytes.len()) && bytes.iter().all(byte)
}

/// Go's `time.ParseDuration`: `1h30m`, `-1.5s`.
fn duration(text: &str) -> bool {
    let mut rest = text.trim_start_matches(['+', '-']);
    if rest == "0" {
        return true;
    }
    let mut any = false;
    while !rest.is_empty() {
        let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = &rest[..rest.len() - unit.len()];
        if !number.bytes().any(|c| c.is_ascii_digit()) || number.matches('.').count() > 1 {
            return false;
        }
        let units = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
        let mut known = units.iter().filter_map(|known| unit.strip_prefix(known));
        match known.find(|rest| rest.is_empty() || rest.starts_with(|c: char| !c.is_alphabetic())) {
            Some(after) => rest = after,
            None => return false,
        }
        any = true;
    }
    any
}

fn base64(text: &str) -> bool {
    let data = text.trim_end_matches('=');
    let padding = text.len() - data.len();
    let letter = |c: u8| c.is_ascii_alphanumeric() || c == b'+' || c == b'/';
    !text.is_empty() && text.len().is_multiple_of(4) && padding <= 2 && data.bytes().all(letter)
}

fn is_variant(letter: u8) -> bool {
    b"89abAB".contains(&letter)
}

/// With hyphens or without; `of` sees the digits of version and variant.
fn uuid(text: &str, of: fn(u8, u8) -> bool) -> bool {
    let mut digits = Vec::new();
    for c in text.bytes() {
        let between = [8, 12, 16, 20].contains(&digits.len());
        match c {
            b'-' if between && !text.contains("--") => {}
            c if c.is_ascii_hexdigit() => digits.push(c),
            _ => return false,
        }
    }
    digits.len() == 32 && of(digits[12], digits[16])
}

/// RFC 1123, and letters of all languages.
fn hostname(text: &str) -> bool {
    let label = |label: &str| {
        let letter = |c: char| c.is_alphanumeric() || c == '-';
        let inner = !label.starts_with('-') && !label.ends_with('-');
        (1..=63).contains(&label.len()) && inner && label.chars().all(letter)
    };
    text.len() <= 255 && text.split('.').all(label)
}

fn email(text: &str) -> bool {
    let address = match text.split_once('<') {
        Some((_, rest)) => rest.strip_suffix('>').unwrap_or_default(),
        None => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let atom = |part: &str| {
        let letter = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
        !part.is_empty() && part.chars().all(letter)
    };
    local.split('.').all(atom) && domain.split('.').all(atom)
}

/// Go's `url.ParseRequestURI`: absolute, or a path.
fn uri(text: &str) -> bool {
    if text.bytes().any(|c| c.is_ascii_control() || c == b' ') {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let letter = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let starts = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    starts && scheme.chars().all(letter) && !rest.is_empty()
}

fn hex_color(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or(text);
    [3, 6].contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_hexdigit())
}
