//! Amounts of a resource as manifests write them (apimachinery pkg/api/resource, quantity.go):
//! `500m`, `1Gi`, `2e3`.

/// A quantity in thousandths, rounded up; `None` if it is none.
pub fn thousandths(quantity: &str) -> Option<i64> {
    let text = quantity.trim();
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor: f64 = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        "Ei" => 1_152_921_504_606_846_976.0,
        exponent => {
            let power = exponent.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
            10f64.powi(power)
        }
    };
    // Whole numbers, the common case, stay exact.
    if let Ok(whole) = number.parse::<i64>()
        && factor >= 1.0
    {
        return Some(whole.saturating_mul(factor as i64).saturating_mul(1000));
    }
    let value = number.parse::<f64>().ok()? * factor * 1000.0;
    // 0.1 * 1000 must not become 101.
    Some((value - 1e-6).ceil() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        let cases = [
            ("100m", 100),
            ("1", 1000),
            ("0.1", 100),
            ("1.5", 1500),
            ("2k", 2_000_000),
            ("1Ki", 1_024_000),
            ("1e3", 1_000_000),
            ("128974848", 128_974_848_000),
            ("1n", 1),
        ];
        for (text, expected) in cases {
            assert_eq!(thousandths(text), Some(expected), "{text}");
        }
        for none in ["many", "", "1x", "1e", "-"] {
            assert_eq!(thousandths(none), None, "{none}");
        }
    }
}
