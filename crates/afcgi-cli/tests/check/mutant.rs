//! The faults that the breakable server can have, each with the case that is there to find it.

/// A fault, the case that finds it, and cases that may find it as well, since it cannot be kept from them.
macro_rules! mutants {
    ($($name:ident = $case:literal $(also [$($also:literal)*] since $reason:literal)?;)*) => {
        /// A fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Mutant {
            $($name),*
        }

        /// A fault and who finds it.
        #[derive(Debug)]
        pub(crate) struct Known {
            pub(crate) mutant: Mutant,
            pub(crate) case: &'static str,
            /// Cases that may find it as well.
            pub(crate) also: &'static [&'static str],
            /// Why they may.
            pub(crate) reason: &'static str,
        }

        /// All of them.
        pub(crate) const ALL: &[Known] = &[$(Known {
            mutant: Mutant::$name,
            case: $case,
            also: &[$($($also),*)?],
            reason: concat!("", $($reason)?),
        }),*];
    };
}

mutants! {
    WantsAHeaderAtOnce = "3.3/1" also ["3.3/2"] since "that cuts the first header, too";
    LosesAByteAtACut = "3.3/2" also ["3.3/1"] since "that cuts everywhere, too";
    DropsWhatIsBehindValues = "3.3/3";
    KeepsPaddingOfBegin = "3.3/4";
    KeepsPaddingOfParams = "3.3/5";
    KeepsPaddingOfStdin = "3.3/6";
    KeepsPaddingOfValues = "3.3/7";
    ReadsPadding = "3.3/8";
    TakesPaddingForSigned = "3.3/9";
    MindsTheReservedByte = "3.3/10";
    EndsInsideARecord = "3.3/11";
    SetsTheReservedByte = "3.3/12";
    SendsData = "3.3/13";
    TakesVersion2 = "3.3/14";
    TakesVersion0 = "3.3/15";
    AnswersHttp = "3.3/16";
    KeepsTls = "3.3/17";
    SkipsAWrongVersion = "3.3/18";
    ClosesAtAnUnknownType = "3.3/19";
    RefusesTheLongestRecord = "3.3/20";
    CutsHighIds = "3.3/21";
    LosesRoundIds = "3.3/22" also ["3.3/2"] since "its ids count up to 256 and more";
    RefusesAnIdAgain = "3.3/23";
    WantsRisingIds = "3.3/24" also ["mpx/12"] since "its ids fall, and one may have ended before the next begins";
    ClosesAtStrayStdin = "3.3/25";
    AnswersStrayParams = "3.3/26";
    ClosesAtStrayData = "3.3/27";
    AnswersAStrayAbort = "3.3/28";
    ClosesAtLateStdin = "3.3/29";
    AnswersTwice = "3.3/30";
    ServesId0 = "3.3/31";
    HangsAtValuesWithAnId = "3.3/32";

    Takes127ForLong = "3.4/1";
    Loses128 = "3.4/2";
    LosesLongNames = "3.4/3";
    RefusesTheLongForm = "3.4/4";
    RefusesAnEmptyValue = "3.4/5";
    RefusesAnEmptyName = "3.4/6";
    WantsAscii = "3.4/7";
    CutsLongValues = "3.4/8";
    IgnoresARecordOfWholePairs = "3.4/9" also ["3.4/13" "mpx/2"] since "some of their records begin with a pair";
    LosesACutName = "3.4/10" also ["3.4/13"] since "that cuts everywhere";
    LosesACutValue = "3.4/11" also ["3.4/13" "3.4/15"] since "both cut a value";
    LosesACutLength = "3.4/12" also ["3.4/13"] since "that cuts everywhere";
    RefusesManyRecords = "3.4/13";
    LosesManyPairs = "3.4/14";
    RefusesValuesOf64K = "3.4/15";

    KeepsNothing = "3.5/1";
    NeverCloses = "3.5/2";
    Resets = "3.5/3";
    ClosesAfterTen = "3.5/4";
    GoesByTheFirstFlag = "3.5/5";
    ClosesUnderOthers = "3.5/6";
    DropsAtHalfClose = "3.5/7" also ["mpx/7"] since "its plain response comes late enough for the long one to be over";
    DropsAtHalfCloseIfKept = "3.5/8" also ["mpx/7"] since "its plain response comes late enough for the long one to be over";
    StaysBehindHalfClose = "3.5/9";
    StaysWithHalfParams = "3.5/10";
    StaysWithoutAByte = "3.5/11";
    MindsLeavers = "3.5/12" also ["mpx/7"] since "its plain response comes late enough for the long one to be over";

    AnswersValuesWithAnId = "4/1";
    TellsMore = "4/2";
    KnowsEveryName = "4/3";
    IgnoresNoNames = "4/4";
    SaysMany = "4/5";
    AnswersNoValuesDuring = "4/6";
    AnswersValuesTwice = "4/7";
    ClosesAfterValues = "4/8" also ["4/7"] since "a request follows an answer there, too";
    AnswersNoValuesBetween = "4/9";
    NamesAnotherType = "4/10";
    FillsUnknownType = "4/11";
    ClosesAfterUnknownType = "4/12";
    ReadsUnknownContent = "4/13";
    IgnoresValuesWithValues = "4/14";
    HangsAtBadValues = "4/15";
    AnswersAHundredValues = "4/16";
    IgnoresLongValues = "4/17";

    ServesRole9 = "5.1/1";
    ReadsOneByteOfTheRole = "5.1/2";
    ServesRole0 = "5.1/3";
    ClosesAfterARefusal = "5.1/4";
    EndsARefusedRequestAgain = "5.1/5";
    RefusesOtherFlags = "5.1/6";
    MindsReservedBytes = "5.1/7";
    TakesAShortBody = "5.1/8";
    TakesALongBody = "5.1/9";
    TakesAnEmptyBody = "5.1/10";

    LosesTheFirstByte = "5.3/1";
    SaysNothingCame = "5.3/2";
    LosesRecordsOfAByte = "5.3/3";
    CutsTheLongestRecord = "5.3/4";
    CutsLongBodies = "5.3/5";
    KeepsPaddingOfBodies = "5.3/6";
    ReadsABodyAsRecords = "5.3/7";
    EndsAtAByte255 = "5.3/8";
    ClosesAtAnUnknownTypeInABody = "5.3/9";
    TakesABodyForARequest = "5.3/10";
    FailsForAShortBody = "5.3/11";
    HangsAtALongBody = "5.3/12";
    HangsBehindStdin = "5.3/13";
    HasNoPatience = "5.3/14";

    IgnoresAbortAfterBegin = "5.4/1" also ["5.4/18"] since "its requests have only begun";
    IgnoresAbortInParams = "5.4/2";
    IgnoresAbortInAPair = "5.4/3";
    IgnoresAbortInStdin = "5.4/4";
    IgnoresAbortOfAWaitingOne = "5.4/5";
    IgnoresAbortAtWork = "5.4/6";
    NeverEndsACutResponse = "5.4/7";
    EndsAbortedWithAStatus = "5.4/8";
    ClosesAfterAnAbort = "5.4/9";
    EndsTwiceIfAbortedTwice = "5.4/10";
    EndsAgainIfAbortedLate = "5.4/11";
    WritesBehindTheEnd = "5.4/12";
    BurnsAbortedIds = "5.4/13";
    AnswersTheRestOfAborted = "5.4/14";
    StaysAfterAnAbort = "5.4/15";
    AbortsAll = "5.4/16";
    IgnoresAbortWithContent = "5.4/17";
    TiresOfAborts = "5.4/18";

    EndsTwice = "5.5/1";
    EndsInFourBytes = "5.5/2";
    EndsWithAProtocolStatus = "5.5/3";
    FillsEnd = "5.5/4";
    EndsWithAnAppStatus = "5.5/5";
    LeavesStdoutOpen = "5.5/6";
    EndsStdoutTwice = "5.5/7";
    LeavesStderrOpen = "5.5/8";
    EndsStderrTwice = "5.5/9";
    MixesStderr = "5.5/10";
    HasNoEmptyLine = "5.5/11";
    HasABadLine = "5.5/12";
    LosesTheLastByte = "5.5/13";
    WritesByteByByte = "5.5/14" also ["mpx/7"] since "its plain response comes late enough for the long one to be over";

    IgnoresAuthorizers = "6/1";
    IgnoresFilters = "6/2";
    WantsAnOrder = "6/3";
    IgnoresEmptyParams = "6/4";
    HangsAtData = "6/5";
    HangsBehindParams = "6/6";

    SwallowsTheSecond = "mpx/1";
    MixesParams = "mpx/2";
    MixesBodies = "mpx/3";
    RefusesTheTenth = "mpx/4";
    WaitsForABody = "mpx/5";
    WaitsForSlow = "mpx/6";
    WaitsForLarge = "mpx/7" also ["flow/10"] since "a long response waits there, for credit";
    ClosesAtBadParams = "mpx/8";
    ClosesAtARefusal = "mpx/9";
    ClosesAtAnAbort = "mpx/10";
    KnowsNoBound = "mpx/11";
    SendsAStrayId = "mpx/12";

    DiesOfAValue = "hostile/1";
    DiesOfAName = "hostile/2";
    DiesOfASum = "hostile/3";
    DiesOfACutPair = "hostile/4";
    DiesOfACutLength = "hostile/5";
    DiesOfNoLength = "hostile/6";
    HangsAtStdout = "hostile/7";
    HangsAtEnd = "hostile/8";
    StaysWithHalfAHeader = "hostile/9";
    StaysWithHalfARecord = "hostile/10";
    StaysWithNoise = "hostile/11";
    WaitsForWhatWasAnnounced = "hostile/12";
    DiesOfManyRequests = "hostile/13";
    HangsAtManyStrays = "hostile/14";
    HangsAtManyUnknown = "hostile/15";
    TakesFewSilent = "hostile/16";
    TakesFewStopped = "hostile/17";
    HangsAtEmptyRecords = "hostile/18";

    CutsForASlowReader = "load/1";
    WaitsForAReader = "load/2" also ["load/4"] since "its clients do not read either until they are gone";
    HasNoPatienceInARecord = "load/3";
    DiesOfLeavers = "load/4";
    TakesFewConnections = "load/5";
    LocksUp = "load/6";
    KeepsLeavers = "load/7";

    HoardsAnswers = "memory/1";
    AllocatesWhatIsAnnounced = "memory/2";
    HoardsParams = "memory/3";
    HoardsBodies = "memory/4";
    HoardsResponses = "memory/5";

    OffersWords = "flow/1";
    OffersUnasked = "flow/2";
    IgnoresCredit = "flow/3";
    TakesCreditOnce = "flow/4";
    HoldsBackWithoutFlag = "flow/5";
    HoldsBackWithoutAgreement = "flow/6";
    WantsMoreThanEnough = "flow/7";
    IgnoresAbortOfABlockedOne = "flow/8";
    ClosesAtStrayCredit = "flow/9";
    BlocksOthers = "flow/10";
    TakesTooMuchCredit = "flow/11";
    TakesTooLongABody = "flow/12";
    GrantsOnce = "flow/13";
    FillsCredit = "flow/14";
    NeverLeavesZero = "flow/15";

    SaysYes = "upgrade/1";
    UpgradesUnasked = "upgrade/2";
    WaitsForTheEnd = "upgrade/3";
    UpgradesUnmarked = "upgrade/4";
    DeclinesLate = "upgrade/5";
    ChangesAMessage = "upgrade/6";
    LosesEarlyBytes = "upgrade/7";
    IgnoresTheEnd = "upgrade/8";
    IgnoresAbortOfATunnel = "upgrade/9";
    BlocksBesideATunnel = "upgrade/10";
    UpgradesToH2c = "upgrade/11";
}
