//! Every command of the protocol's table is said in a transcript.

use protocol::command::COMMANDS;

use super::File;

pub(super) fn problems(files: &[File]) -> Vec<String> {
    let said: Vec<&str> = files
        .iter()
        .filter(|file| file.path.components().any(|part| part.as_os_str() == "transcripts"))
        .flat_map(|file| file.text.lines())
        .collect();
    COMMANDS
        .iter()
        .filter(|command| !said.iter().any(|line| says(line, command.name)))
        .map(|command| format!("no transcript says the command {}", command.name))
        .collect()
}

/// Whether a line of a transcript is the client saying this command: `> get key`.
fn says(line: &str, command: &str) -> bool {
    line.strip_prefix('>').and_then(|said| said.split_whitespace().next()) == Some(command)
}

#[cfg(test)]
mod tests {
    use super::says;

    #[test]
    fn a_command_is_the_first_word_of_the_client() {
        assert!(says("> get a b", "get"));
        assert!(says("> quit", "quit"));
        assert!(!says("> gets a", "get"));
        assert!(!says("< get", "get"));
        assert!(!says("> set get 0 0 1", "get"));
    }
}
