//! How often what is to be tested has happened.

macro_rules! tally {
    ($($(#[doc = $doc:literal])? $name:ident,)*) => {
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Tally {
            $($(#[doc = $doc])? pub $name: u64,)*
        }

        impl Tally {
            pub fn add(&mut self, other: &Tally) {
                $(self.$name += other.$name;)*
            }

            /// What has happened less often than this.
            pub fn rarer_than(&self, least: u64) -> Vec<&'static str> {
                let all = [$((stringify!($name), self.$name)),*];
                all.into_iter().filter(|(_, count)| *count < least).map(|(name, _)| name).collect()
            }
        }
    };
}

tally! {
    processes,
    forks,
    ghosts_forked,
    ghosts_in_time,
    /// Ghosts that have been told to take children in.
    takers,
    /// Ghosts that have become another one's children.
    taken_in,
    outcomes,
    verdicts,
    returns_with_processes,
    signals_again,
    killed_asleep,
    killed_awake,
    stopped_asleep,
    masters_killed,
    resumed,
    agents_killed,
    holders_killed,
    leases_over,
    one_way_cuts,
    signals_delivered,
    signals_in_time,
    output,
    input,
}
