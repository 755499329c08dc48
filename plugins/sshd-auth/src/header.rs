//! What stands before the message of a syslog line.
//!
//! ```text
//! Dec 10 07:13:56 LabSZ sshd[24227]: ...                               the classic form; a day below ten has two spaces before it
//! 2024-12-10T07:13:56.123456+01:00 LabSZ sshd-session[24227]: ...      newer rsyslog and systems with OpenSSH 9.8
//! ```

/// Who wrote a line, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// As written.
    pub time: &'a str,
    /// The machine's name.
    pub host: &'a str,
    /// The process.
    pub pid: u32,
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Since OpenSSH 9.8 and 10.0 several programs share the work.
const PROGRAMS: [&str; 3] = ["sshd", "sshd-session", "sshd-auth"];

/// Splits a line into its header and its message.
pub fn read(line: &str) -> Result<(Header<'_>, &str), String> {
    let (time, rest) = time(line).ok_or("not a syslog line: it does not start with a time")?;
    let (host, rest) = rest
        .split_once(' ')
        .ok_or("not a syslog line: nothing after the time")?;
    let (tag, text) = rest
        .split_once(": ")
        .ok_or("not a syslog line: no program before the message")?;
    let (program, pid) = match tag.split_once('[') {
        Some((program, pid)) => (program, pid.strip_suffix(']')),
        None => (tag, None),
    };
    if !PROGRAMS.contains(&program) {
        return Err(format!("not a line of sshd: the program is {program:?}"));
    }
    let pid = pid
        .and_then(|pid| pid.parse().ok())
        .ok_or_else(|| format!("no process id in {tag:?}"))?;
    Ok((Header { time, host, pid }, text))
}

/// The time as written, and what follows the space behind it.
fn time(line: &str) -> Option<(&str, &str)> {
    let end = if line.as_bytes().first()?.is_ascii_digit() {
        let end = line.find(' ')?;
        iso(&line.as_bytes()[..end]).then_some(end)?
    } else {
        // `Mmm dd hh:mm:ss`
        let end = 15;
        classic(line.as_bytes().get(..end)?).then_some(end)?
    };
    let rest = line.get(end..)?.strip_prefix(' ')?;
    Some((&line[..end], rest))
}

fn classic(time: &[u8]) -> bool {
    let month = MONTHS
        .iter()
        .any(|month| time.starts_with(month.as_bytes()));
    month && shaped(&time[3..], b" _0 00:00:00")
}

fn iso(time: &[u8]) -> bool {
    time.len() >= 19 && shaped(&time[..19], b"0000-00-00T00:00:00")
}

/// `0` stands for a digit, `_` for a digit or a space, the rest for itself.
fn shaped(text: &[u8], shape: &[u8]) -> bool {
    text.len() == shape.len()
        && text.iter().zip(shape).all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            b'_' => byte.is_ascii_digit() || *byte == b' ',
            shape => byte == shape,
        })
}
