//! The small grammars inside texts: durations, shares, Kubernetes quantities.

use std::time::Duration;

/// `1.5s`, `200ms`, `26h`, `2m30s`. Units: ns, us (µs), ms, s, m, h, d.
pub fn duration(text: &str) -> Result<Duration, String> {
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
    let bad = || format!("`{text}` is not a duration");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    let mut nanos = 0u64;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (digits, tail) = rest.split_at(number);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        let part = decimal(digits, *scale).ok_or_else(bad)?;
        nanos = nanos.checked_add(part).ok_or_else(|| format!("`{text}` is too long"))?;
        rest = tail;
    }
    Ok(Duration::from_nanos(nanos))
}

/// `digits * scale` without floating point; what is below one is cut off.
fn decimal(digits: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || fraction.contains('.') || digits.ends_with('.') {
        return None;
    }
    let mut total = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    let mut unit = scale;
    for digit in fraction.bytes() {
        unit /= 10;
        total = total.checked_add(u64::from(digit - b'0') * unit)?;
    }
    Some(total)
}

/// `2%` as 0.02.
pub fn percent(text: &str) -> Option<f64> {
    let number: f64 = text.trim().strip_suffix('%')?.trim().parse().ok()?;
    (0.0..=100.0).contains(&number).then_some(number / 100.0)
}

/// Kubernetes' CPU quantity in thousandths: `500m`, `4`, `1.5`.
pub fn cpu(text: &str) -> Option<u64> {
    match text.strip_suffix('m') {
        Some(millis) => millis.parse().ok(),
        None if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') => decimal(text, 1000),
        None => None,
    }
}

/// Kubernetes' memory quantity in bytes: `8Gi`, `512Mi`, `1G`.
pub fn memory(text: &str) -> Option<u64> {
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
    let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
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
        for bad in ["", "5", "s", "5x", "1.s", ".5s", "1..5s", "-1s", "9999999999d", "5 s", "1é"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn quantities() {
        assert_eq!(cpu("500m"), Some(500));
        assert_eq!(cpu("1.5"), Some(1500));
        assert_eq!(cpu("x"), None);
        assert_eq!(cpu(""), None);
        assert_eq!(memory("8Gi"), Some(8 << 30));
        assert_eq!(memory("1.5k"), Some(1500));
        assert_eq!(memory("8Qi"), None);
        assert_eq!(percent("2%"), Some(0.02));
        assert_eq!(percent("101%"), None);
    }
}
