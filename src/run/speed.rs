//! How fast virtual time passes for who looks on.

use std::fmt;

/// Times as fast as the machine's time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// At most this many; a run that cannot keep up is slower.
    Times(f64),
    /// As fast as it goes.
    Max,
}

/// Beyond that nobody can look on, and `max` is what is meant.
const FASTEST: f64 = 10_000.0;

impl Speed {
    /// `1x`, `0.5x`, `max`.
    pub fn parse(text: &str) -> Result<Speed, String> {
        let how = "write it like 1x, 10x, 0.5x or max";
        if text == "max" {
            return Ok(Speed::Max);
        }
        let number = text.strip_suffix('x').ok_or(how)?;
        let times: f64 = number.parse().map_err(|_| how)?;
        if !times.is_finite() || times <= 0.0 {
            return Err(format!("time goes on: {how}"));
        }
        if times > FASTEST {
            return Err(format!("it is at most {FASTEST}x; max is as fast as it goes"));
        }
        Ok(Speed::Times(times))
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Speed::Times(times) => write!(f, "{times}x"),
            Speed::Max => f.write_str("max"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_a_number_of_times_or_max() {
        for (text, speed) in [
            ("1x", Speed::Times(1.0)),
            ("10x", Speed::Times(10.0)),
            ("0.5x", Speed::Times(0.5)),
            ("max", Speed::Max),
        ] {
            assert_eq!(Speed::parse(text), Ok(speed));
            assert_eq!(speed.to_string(), text);
        }
        let how = "write it like 1x, 10x, 0.5x or max";
        for bad in ["", "x", "10", "fast", "1 x", "1xx", "MAX"] {
            assert_eq!(Speed::parse(bad), Err(how.to_owned()), "{bad:?}");
        }
        for still in ["0x", "-1x", "nanx", "infx"] {
            assert_eq!(Speed::parse(still), Err(format!("time goes on: {how}")), "{still:?}");
        }
        assert!(Speed::parse("20000x").is_err_and(|why| why.starts_with("it is at most 10000x")));
    }
}
