//! Amounts of a resource as manifests write them (apimachinery pkg/api/resource, quantity.go):
//! `500m`, `1Gi`, `2e3`.

use std::fmt;

/// An amount, exact to a billionth, and the family of suffixes it is written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity {
    nanos: i128,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `Ki`, `Mi`, …
    Binary,
    /// `m`, `k`, `M`, …
    Decimal,
    /// `e3`
    Exponent,
}

const ONE: i128 = 1_000_000_000;
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, form: Form::Decimal };

    /// So many, of what is counted.
    pub fn count(of: i64) -> Quantity {
        Quantity { nanos: i128::from(of) * ONE, form: Form::Decimal }
    }

    /// `None` if the text is no quantity. What is smaller than a billionth is rounded up, and what
    /// is too large to be held counts as the largest amount.
    pub fn parse(text: &str) -> Option<Quantity> {
        let text = text.trim();
        let digits = |c: char| matches!(c, '0'..='9' | '.' | '+' | '-');
        let end = text.find(|c| !digits(c)).unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (negative, number) = match number.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, number.strip_prefix('+').unwrap_or(number)),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if whole.len() + part.len() == 0 || !all_digits(whole) || !all_digits(part) {
            return None;
        }
        let (form, factor, power) = scale(suffix)?;
        let nanos = nanos(whole, part, factor, power);
        Some(Quantity { nanos: if negative { -nanos } else { nanos }, form })
    }

    /// In thousandths, rounded up.
    pub fn thousandths(self) -> i64 {
        let thousandth = ONE / 1000;
        let up =
            self.nanos.div_euclid(thousandth) + i128::from(self.nanos.rem_euclid(thousandth) != 0);
        up.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// The larger of the two is so by what it amounts to, however it is written.
    pub fn exceeds(self, other: Quantity) -> bool {
        self.nanos > other.nanos
    }

    /// How many times the other goes into this one; infinite of nothing.
    pub fn over(self, other: Quantity) -> f64 {
        self.nanos as f64 / other.nanos as f64
    }

    /// Written as the first that is not nothing.
    pub fn plus(self, other: Quantity) -> Quantity {
        let form = if self.is_zero() { other.form } else { self.form };
        Quantity { nanos: self.nanos.saturating_add(other.nanos), form }
    }

    pub fn minus(self, other: Quantity) -> Quantity {
        self.plus(Quantity { nanos: -other.nanos, ..other })
    }

    pub fn max(self, other: Quantity) -> Quantity {
        if other.exceeds(self) { other } else { self }
    }
}

/// The family of a suffix, and what it multiplies by: a factor and a power of ten.
fn scale(suffix: &str) -> Option<(Form, i128, i32)> {
    if let Some(at) = DECIMAL.iter().position(|known| *known == suffix) {
        return Some((Form::Decimal, 1, 3 * (at as i32 - 3)));
    }
    if let Some(at) = BINARY.iter().position(|known| *known == suffix) {
        return Some((Form::Binary, 1 << (10 * at), 0));
    }
    let power = suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
    Some((Form::Exponent, 1, power))
}

/// Far above what upstream holds (2^63), and far below where sums of it overflow.
const LARGEST: i128 = i64::MAX as i128 * ONE;

fn nanos(whole: &str, part: &str, factor: i128, power: i32) -> i128 {
    let mantissa = whole
        .bytes()
        .chain(part.bytes())
        .try_fold(0_i128, |sum, digit| sum.checked_mul(10)?.checked_add(i128::from(digit - b'0')));
    let Some(value) = mantissa.and_then(|mantissa| mantissa.checked_mul(factor)) else {
        return LARGEST;
    };
    // Billionths, of a number with its point moved to the end.
    let power = i64::from(power) + 9 - i64::try_from(part.len()).unwrap_or(i64::MAX);
    let ten = u32::try_from(power.unsigned_abs()).ok().and_then(|n| 10_i128.checked_pow(n));
    match (power >= 0, ten) {
        _ if value == 0 => 0,
        (true, Some(ten)) => value.checked_mul(ten).unwrap_or(LARGEST).min(LARGEST),
        (true, None) => LARGEST,
        (false, Some(ten)) => ((value + ten - 1) / ten).min(LARGEST),
        (false, None) => 1,
    }
}

/// As upstream writes it (`CanonicalizeBytes`): the largest suffix that needs no fraction. A binary
/// amount is rounded up to a whole one, and below 1024 is a decimal one.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let binary = self.form == Form::Binary && self.nanos.abs() >= 1024 * ONE;
        if binary {
            let mut whole =
                self.nanos.div_euclid(ONE) + i128::from(self.nanos.rem_euclid(ONE) != 0);
            let mut at = 0;
            while whole % 1024 == 0 && at + 1 < BINARY.len() {
                whole /= 1024;
                at += 1;
            }
            return write!(f, "{whole}{}", BINARY[at]);
        }
        let mut mantissa = self.nanos;
        let mut at = 0;
        while mantissa % 1000 == 0 && at + 1 < DECIMAL.len() {
            mantissa /= 1000;
            at += 1;
        }
        match self.form {
            Form::Exponent if at != 3 => write!(f, "{mantissa}e{}", 3 * (at as i32 - 3)),
            _ => write!(f, "{mantissa}{}", DECIMAL[at]),
        }
    }
}

/// A quantity in thousandths, rounded up; `None` if it is none.
pub fn thousandths(quantity: &str) -> Option<i64> {
    Quantity::parse(quantity).map(Quantity::thousandths)
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
            ("1e-3", 1),
            ("128974848", 128_974_848_000),
            ("1n", 1),
            ("-1500m", -1500),
            (".5Ki", 512_000),
            ("99999999999999999999999999999999999999999E", i64::MAX),
            ("1e99", i64::MAX),
            ("1e-99", 1),
        ];
        for (text, expected) in cases {
            assert_eq!(thousandths(text), Some(expected), "{text}");
        }
        for none in ["many", "", "1x", "1e", "-", "1.2.3", "1-2", "+-1", "."] {
            assert_eq!(thousandths(none), None, "{none}");
        }
    }

    /// The pairs are of upstream's quantity_test.go (`TestQuantityString`).
    #[test]
    fn amounts_are_written_in_their_shortest_form() {
        let cases = [
            ("1024Ki", "1Mi"),
            ("300Mi", "300Mi"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("2000", "2k"),
            ("1200", "1200"),
            ("0Gi", "0"),
            ("1023Ki", "1023Ki"),
            ("512", "512"),
            ("1e6", "1e6"),
            ("0.5Gi", "512Mi"),
            ("0.1Ki", "102400m"),
            ("-1Gi", "-1Gi"),
            ("1000000k", "1G"),
        ];
        for (text, expected) in cases {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn a_sum_is_written_as_its_first_part() {
        let of = |text| Quantity::parse(text).unwrap();
        assert_eq!(of("1Gi").plus(of("1024")).to_string(), "1048577Ki");
        assert_eq!(Quantity::ZERO.plus(of("64Mi")).plus(of("64Mi")).to_string(), "128Mi");
        assert_eq!(of("1").minus(of("250m")).to_string(), "750m");
        assert_eq!(of("1Gi").minus(of("1Gi")).to_string(), "0");
    }
}
