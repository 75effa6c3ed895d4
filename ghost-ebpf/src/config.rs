//! The loader's configuration, a read-only global. The verifier knows its words as constants.

use ghost_abi::Config;

#[unsafe(no_mangle)]
static CONFIG: [u32; Config::WORDS] = [0; Config::WORDS];

/// Reads one field of [`Config`], named by its offset in the struct.
#[inline(always)]
pub fn word(offset: usize) -> u32 {
    // SAFETY: every caller passes `offset_of!(Config, field)` (see `config!`), so the word lies in the array. Volatile,
    // since the loader replaces the contents that the compiler sees.
    unsafe { (&raw const CONFIG).cast::<u32>().byte_add(offset).read_volatile() }
}

/// `config!(field)`: a field of [`ghost_abi::Config`].
macro_rules! config {
    ($field:ident) => {
        $crate::config::word(core::mem::offset_of!(ghost_abi::Config, $field))
    };
}
pub(crate) use config;
