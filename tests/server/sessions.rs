//! Sessions that are written down (`transcript`), with a server on which nothing happens by itself.

use super::each;
use super::transcript::play;

#[test]
fn everything_is_shown_in_every_form_with_upstreams_columns() {
    each(|place, server| play("forms.txt", place, server));
}

#[test]
fn mistakes_are_told_in_upstreams_words() {
    each(|place, server| play("mistakes.txt", place, server));
}
