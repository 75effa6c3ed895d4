//! Whether a program runs without anything of the system that it is put on.

/// `PT_INTERP` and `PT_DYNAMIC` (elf(5)): it wants a dynamic loader, or libraries.
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;

/// A static program for x86-64.
pub fn is_static(program: &[u8]) -> bool {
    kinds(program).is_some_and(|kinds| !kinds.is_empty() && !kinds.contains(&PT_INTERP) && !kinds.contains(&PT_DYNAMIC))
}

/// The kinds of its segments; `None`: it is no such file.
fn kinds(program: &[u8]) -> Option<Vec<u32>> {
    let number = |at: usize, length: usize| {
        let bytes = program.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte)))
    };
    // Of 64 bits, the least significant byte first; EM_X86_64.
    if program.get(..6)? != b"\x7fELF\x02\x01" || number(18, 2)? != 62 {
        return None;
    }
    let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    (0..count).map(|index| u32::try_from(number(usize::try_from(start + index * size).ok()?, 4)?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_is_static_and_the_systems_shell_is_not() {
        let own = std::fs::read(std::env::current_exe().expect("our own path")).expect("our own program");
        assert!(is_static(&own));
        assert!(!is_static(&std::fs::read("/bin/sh").expect("a shell")));
        assert!(!is_static(b"#!/bin/sh\n") && !is_static(b"") && !is_static(&own[..40]));
    }
}
