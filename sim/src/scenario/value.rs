//! The small grammars inside texts: durations, shares, Kubernetes quantities.

use std::time::Duration;

/// Why a text is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is not written as one.
    Form,
    /// It is one that does not fit.
    TooLarge,
}

/// The longest duration that fits: 2^64 ns, in whole days.
pub const LONGEST: &str = "213503d";

/// `1.5s`, `200ms`, `26h`, `2m30s`. Units: ns, us (µs), ms, s, m, h, d.
pub fn duration(text: &str) -> Result<Duration, Wrong> {
    const UNITS: [(&str, u64); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
        ("d", 86_400_000_000_000),
    ];
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(Wrong::Form);
    }
    let mut nanos = Some(0u64);
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(Wrong::Form)?;
        let (digits, tail) = rest.split_at(number);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(Wrong::Form)?;
        // What does not fit may yet turn out to be no duration at all.
        nanos = match decimal(digits, *scale) {
            Ok(part) => nanos.and_then(|nanos| nanos.checked_add(part)),
            Err(Wrong::TooLarge) => None,
            Err(Wrong::Form) => return Err(Wrong::Form),
        };
        rest = tail;
    }
    nanos.map(Duration::from_nanos).ok_or(Wrong::TooLarge)
}

/// The same with the reason in words.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text).map_err(|wrong| match wrong {
        Wrong::Form => format!("`{text}` is not a duration"),
        Wrong::TooLarge => format!("`{text}` is too large, the most is {LONGEST}"),
    })
}

/// `digits * scale` without floating point; what is below one is cut off.
fn decimal(digits: &str, scale: u64) -> Result<u64, Wrong> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || digits.ends_with('.') || !number(whole) || !number(fraction) {
        return Err(Wrong::Form);
    }
    let whole = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(scale));
    let mut total = whole.ok_or(Wrong::TooLarge)?;
    let mut unit = scale;
    for digit in fraction.bytes() {
        unit /= 10;
        let part = u64::from(digit - b'0') * unit;
        total = total.checked_add(part).ok_or(Wrong::TooLarge)?;
    }
    Ok(total)
}

/// `2%` as 0.02.
pub fn percent(text: &str) -> Option<f64> {
    let number: f64 = text.trim().strip_suffix('%')?.trim().parse().ok()?;
    (0.0..=100.0).contains(&number).then_some(number / 100.0)
}

/// Kubernetes' CPU quantity in thousandths: `500m`, `4`, `1.5`.
pub fn cpu(text: &str) -> Result<u64, Wrong> {
    match text.strip_suffix('m') {
        Some(millis) if millis.contains('.') => Err(Wrong::Form),
        Some(millis) => decimal(millis, 1),
        None => decimal(text, 1000),
    }
}

/// Kubernetes' memory quantity in bytes: `8Gi`, `512Mi`, `1G`.
pub fn memory(text: &str) -> Result<u64, Wrong> {
    const UNITS: [(&str, u64); 9] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("", 1),
    ];
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(at);
    let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(Wrong::Form)?;
    decimal(digits, *scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(duration("26h"), Ok(Duration::from_secs(26 * 3600)));
        assert_eq!(duration("2m30s"), Ok(Duration::from_secs(150)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for bad in ["", "5", "s", "5x", "1.s", ".5s", "1..5s", "1.5.5s", "-1s", "5 s", "1é"] {
            assert_eq!(duration(bad), Err(Wrong::Form), "{bad:?}");
        }
        for large in ["9999999999d", "99999999999999999999999s", "213504d", "213503d1d"] {
            assert_eq!(duration(large), Err(Wrong::TooLarge), "{large:?}");
        }
        assert_eq!(duration("9999999999d5x"), Err(Wrong::Form));
        assert!(duration(LONGEST).is_ok());
    }

    #[test]
    fn quantities() {
        assert_eq!(cpu("500m"), Ok(500));
        assert_eq!(cpu("1.5"), Ok(1500));
        assert_eq!(cpu("x"), Err(Wrong::Form));
        assert_eq!(cpu(""), Err(Wrong::Form));
        assert_eq!(memory("8Gi"), Ok(8 << 30));
        assert_eq!(memory("1.5k"), Ok(1500));
        assert_eq!(memory("8Qi"), Err(Wrong::Form));
        assert_eq!(memory("16777216Ti"), Err(Wrong::TooLarge));
        assert_eq!(cpu("99999999999999999999"), Err(Wrong::TooLarge));
        assert_eq!(percent("2%"), Some(0.02));
        assert_eq!(percent("101%"), None);
    }
}
