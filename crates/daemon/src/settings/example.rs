//! The settings file that `larder settings` prints: every setting, at its default.

use std::fmt::Write;

use super::{Setting, TABLE};

/// An annotated settings file. Every setting is commented out, so the file as it is changes nothing.
pub fn example() -> String {
    let mut text = String::from(HEAD);
    let mut section = "";
    for setting in TABLE {
        if setting.section != section {
            section = setting.section;
            write!(text, "\n# ---- {section} ----\n").expect("a String can be written to");
        }
        write!(text, "\n{}", entry(setting)).expect("a String can be written to");
    }
    text
}

const HEAD: &str = "\
# Settings of `larder up` and `larder node`.
#
# A flag on the command line beats an environment variable, which beats this file, which beats the
# default. The variable of a setting is LARDER_ and its name in capitals: LARDER_LISTEN.
# Remove the # before a setting to change it.
";

fn entry(setting: &Setting) -> String {
    let help: String = setting.help.iter().map(|line| format!("#{line}\n")).collect();
    let value = match setting.is_text {
        true => format!("\"{}\"", setting.default),
        false => setting.default.to_owned(),
    };
    format!(
        "{help}# Must be {}.\n# Default: {}.\n#{} = {value}\n",
        (setting.expects)(),
        setting.why,
        setting.name
    )
}
