/* The end of a follower's part in a lane, with a crash at every step.
 *
 * Follows shmlog/csrc/core: cut.c (an owner's finish, the flusher's close), lane.h (limit, the two looks),
 * producer.c (begin_part), room.c (make_room, drop, retire, uncut), py_room.c (has_ended, what is counted as late),
 * drain.c (finalize, settle), frame.c (end_of_lane) and flusher/loop.py (the close, which the next flusher does
 * anew after a kill). A step here is a load or store of a shared word there. Laps, units of several slots and the bytes
 * of a slot are in lane.pml; here a position is used once and a unit has one slot.
 *
 * Spin knows sequential consistency. The reordering that matters here is written out: a store of the
 * producer sits in a buffer of one entry while its loads go on, until the processor, a further store, a full
 * fence or the flusher's barrier takes it out.
 *
 * Bounds and mistakes are given by -D. Without a MISTAKE_… every assertion holds; with one, some assertion
 * fails. Their comments name the invariants of the design.
 */
#ifndef SLOTS
#define SLOTS 2          /* capacity of the lane */
#endif
#ifndef UNITS
#define UNITS 3          /* records that are offered, by all followers together */
#endif
#ifndef FOLLOWERS
#define FOLLOWERS 2      /* one after the other */
#endif
#ifndef OWNERS
#define OWNERS 1         /* each cuts its followers, or dies; 0: only the flusher cuts */
#endif
#ifndef FOLLOWER_DEATHS
#define FOLLOWER_DEATHS 1
#endif
#ifndef FLUSHER_DEATHS
#define FLUSHER_DEATHS 1
#endif
#ifndef LAST_IS_OWNER
#define LAST_IS_OWNER 0  /* the last producer is no follower, but an owner that keeps the run alive */
#endif
#define FLUSHERS (FLUSHER_DEATHS + 1)

#define IS_OWNER(who) (LAST_IS_OWNER && (who) == FOLLOWERS)
#define ALONE 7                                  /* a token of an owner without a process here */
#if OWNERS == 0
#define FOLLOWS(who) ALONE
#else
#define FOLLOWS(who) ((who) <= OWNERS -> (who) : OWNERS)
#endif
#define TOKEN(who) (IS_OWNER(who) -> 0 : FOLLOWS(who))

/* What a slot holds: a record (1 … UNITS), or the lane's drops so far. */
#define GAP(count) (100 + (count))
#define IS_GAP(unit) ((unit) >= GAP(0))
#define POSITIONS (2 * UNITS + 2)

/* lane.final; 0: not decided */
#define FINAL(position, by_flusher) (2 * (position) + (by_flusher) + 1)
#define FINAL_POSITION(final) (((final) - 1) / 2)
#define BY_FLUSHER(final) (((final) - 1) % 2)

/* ---- shared memory ---- */

byte slot[POSITIONS];    /* 0: not committed */
byte tail;
byte gapped;
byte limit;
byte follows;
bool cut;
byte final;
byte dropped;
byte told;
bool closed;

/* ---- the kernel, and what the owners have open ---- */

byte lane_lock;          /* its holder; 0: none */
byte flusher_lock;
byte members;            /* who keeps the run alive */
bool withdrawn[8];       /* by token: its beacon names the run no more */

/* ---- the log: where it ends, and what its decoder knows there ---- */

byte log_position;
byte log_gapped;

/* ---- what the books are held against ---- */

byte offered;
bool began_after_cut[UNITS + 1];  /* the call began after the cut was complete */
bool returned[UNITS + 1];  /* its call has returned and wrote it */
bool gave_up[UNITS + 1];   /* its call has dropped it, since the lane was full */
bool late[UNITS + 1];      /* its call has counted it as late */
bool moved[UNITS + 1];     /* its call went on to another run */
bool logged[UNITS + 1];
byte late_drops;           /* drops that the run has not told, counted as late */
byte killed;               /* calls that no one has returned from */
bool cut_complete[8];      /* by token */
bool close_complete;       /* the flusher has cut all, and passed its barrier */
bool settled;
bool finished;

/* ---- deaths ---- */

byte kill_follower;      /* who is to take no further step */
byte kill_flusher;
byte followers_begun;    /* lives begin in order */
byte flushers_begun;

/* SIGKILL of who is at work, at any time. */
proctype Killer()
{
    byte followers, flushers;
    do
    :: atomic { followers < FOLLOWER_DEATHS && lane_lock && !kill_follower ->
            kill_follower = lane_lock; followers++ }
    :: atomic { flushers < FLUSHER_DEATHS && flusher_lock && !kill_flusher ->
            kill_flusher = flusher_lock; flushers++ }
    :: finished || (followers == FOLLOWER_DEATHS && flushers == FLUSHER_DEATHS) -> break
    od
}

/* ---- the store buffer of the processor on which the lane's holder runs ---- */

#define NOTHING 0
#define COMMIT 1
#define LIMIT 2
#define DROPPED 3
#define FOLLOWS_WORD 4
#define CUT_WORD 5

byte buffered;           /* a word */
byte buffered_value;
byte buffered_at;

/* Within an atomic step. */
inline empty_buffer()
{
    if
    :: buffered == COMMIT -> slot[buffered_at] = buffered_value
    :: buffered == LIMIT -> limit = buffered_value
    :: buffered == DROPPED -> dropped = buffered_value
    :: buffered == FOLLOWS_WORD -> follows = buffered_value
    :: buffered == CUT_WORD -> cut = buffered_value
    :: else
    fi;
    buffered = NOTHING; buffered_value = 0; buffered_at = 0
}

#define store_at(word, position, value) \
    d_step { empty_buffer(); buffered = word; buffered_value = value; buffered_at = position }
#define store(word, value) store_at(word, 0, value)
#define fence() d_step { empty_buffer() }

/* Who stores sees its own stores at once. */
#define LIMIT_SEEN (buffered == LIMIT -> buffered_value : limit)
#define CUT_SEEN (buffered == CUT_WORD -> buffered_value : cut)

proctype Processor()
{
end:
    do
    :: d_step { buffered != NOTHING -> empty_buffer() }
    od
}

/* ---- the producer ---- */

#define WAS_CUT_BEFORE(who) (close_complete || (!IS_OWNER(who) && cut_complete[FOLLOWS(who)]))

/* The part ends for a reason only: its owner has finished, or nobody keeps the run alive. */
inline check_reason()
{
    assert(closed || (!IS_OWNER(me) && withdrawn[FOLLOWS(me)]))  /* I3: and what is logged until then is in the run */
}

/* Whether the run goes on for the producer: `closed` and the beacon tell, one after the other. */
inline look_for_end()
{
    if
#ifndef MISTAKE_CLOSED_NOT_LOOKED_AT_WHEN_CUT
    :: closed -> is_over = true
#endif
    :: else ->
        if
#ifndef MISTAKE_OWNER_NOT_LOOKED_AT_WHEN_CUT
        :: !IS_OWNER(me) && withdrawn[FOLLOWS(me)] -> is_over = true
#endif
        :: else
        fi
    fi
}

#if defined(MISTAKE_CUT_IS_PROOF)
#define CUT_IS_PROOF(who) true
#elif defined(MISTAKE_CUT_IS_PROOF_TO_AN_OWNER)
#define CUT_IS_PROOF(who) IS_OWNER(who)
#else
#define CUT_IS_PROOF(who) false
#endif

/* The lane was cut: sets is_over if that was meant for this producer, else takes it back. */
inline has_ended()
{
    fence();
    if
    :: CUT_IS_PROOF(me) -> is_over = true
    :: else ->
        look_for_end();
        if
        :: !is_over ->
            store(CUT_WORD, false);
#ifndef MISTAKE_NO_FENCE_AFTER_UNCUT
            fence();
#endif
#ifndef MISTAKE_NO_LOOK_AFTER_UNCUT
            look_for_end()
#endif
        :: else
        fi
    fi
}

/* Leave the lane: by a system call, or by death. */
inline leave()
{
    atomic { empty_buffer(); lane_lock = 0; has_lane = false }
}

/* Decide where the lane ends, or go by what the flusher has decided; `records` are the last unit's. */
inline retire(records)
{
    check_reason();
    d_step {
        empty_buffer();  /* the exchange is a release */
        if
        :: final == 0 -> final = FINAL(head, 0); end = 0
        :: else -> end = final
        fi
    }
    if
    :: end == 0 -> leave()
    :: else ->
        untold = (dropped > told -> dropped - told : 0);
        lost = (head > FINAL_POSITION(end) && records);
        leave();
#ifndef MISTAKE_UNTOLD_NOT_COUNTED
        d_step { late_drops = late_drops + untold; untold = 0 }
#endif
    fi;
    is_over = true
}

inline return_moved()
{
    d_step { moved[doing] = true; doing = 0 }
}

/* The lane is locked. */
inline begin_part()
{
    if
#ifndef MISTAKE_CLOSED_NOT_LOOKED_AT_FIRST
    :: closed -> is_over = true
#endif
    :: else ->
        d_step { empty_buffer(); limit = 0 }
        cut = false;
        final = 0;
        store(FOLLOWS_WORD, TOKEN(me));
#ifndef MISTAKE_NO_FENCE_IN_BEGIN_PART
        fence();
#endif
        if
#ifndef MISTAKE_CLOSED_NOT_LOOKED_AT_AFTER
        :: closed -> is_over = true
#endif
        :: else ->
            d_step {
                tail_seen = tail;
                head = tail_seen;
                do
                :: head < POSITIONS && slot[head] -> head++
                :: else -> break
                od;
                owes_gap = (dropped != gapped)
            }
            if
#ifndef MISTAKE_OWNER_NOT_LOOKED_AT
            :: !IS_OWNER(me) && withdrawn[FOLLOWS(me)] -> is_over = true
#endif
            :: else
            fi
        fi
    fi;
    if
    :: is_over -> leave(); return_moved()
    :: else
    fi
}

inline drop()
{
    d_step { empty_buffer(); limit = 0; owes_gap = true; buffered = DROPPED; buffered_value = dropped + 1 }
    fence();
    if
#ifndef MISTAKE_NO_LOOK_AFTER_DROP
    :: CUT_SEEN ->
        has_ended();
        if
        :: is_over -> retire(0)
        :: else
        fi
#endif
    :: else
    fi;
    d_step { gave_up[doing] = true; doing = 0 }
}

/* Sets is_cut, or ends the call without a record written if the lane is full. */
inline try_room()
{
    tail_seen = tail;
    if
    :: CUT_SEEN -> is_cut = true
    :: else ->
        if
        :: head - tail_seen + (owes_gap -> 1 : 0) + 1 > SLOTS -> drop()
        :: else ->
            if
            :: owes_gap ->
                store_at(COMMIT, head, GAP(dropped));
                d_step { head++; owes_gap = false }
            :: else
            fi;
            store(LIMIT, tail_seen + SLOTS);
#ifndef MISTAKE_NO_FENCE_IN_ALLOW
            fence();
#endif
            if
#ifndef MISTAKE_NO_LOOK_AT_CUT
            :: CUT_SEEN -> store(LIMIT, 0); is_cut = true
#endif
            :: else
            fi
        fi
    fi
}

/* May end the call, without a record written. */
inline make_room()
{
    do
    :: try_room();
        if
        :: !is_cut -> break
        :: else
        fi;
        is_cut = false;
        has_ended();
        if
        :: is_over -> retire(0); return_moved(); break
        :: else
        fi
    od
}

inline write_record()
{
    store_at(COMMIT, head, doing);
    head++;
    if
#ifndef MISTAKE_NO_LOOK_AFTER_COMMIT
    :: LIMIT_SEEN == 0 ->
        has_ended();
        if
        :: is_over -> retire(1)
        :: else
        fi;
        d_step {
            if
            :: lost -> late[doing] = true; lost = false
            :: else -> returned[doing] = true
            fi;
            doing = 0
        }
#endif
    :: else -> d_step { returned[doing] = true; doing = 0 }
    fi
}

inline log_record()
{
    atomic {
        offered < UNITS && !is_over && (has_lane || (lane_lock == 0 && followers_begun == me - 1)) ->
        offered++; doing = offered; began_after_cut[doing] = WAS_CUT_BEFORE(me);
        if
        :: !has_lane -> lane_lock = me; followers_begun = me
        :: else
        fi
    }
    if
    :: !has_lane -> has_lane = true; begin_part()
    :: else
    fi;
    if
    :: doing && LIMIT_SEEN < head + 1 -> make_room()
    :: else
    fi;
    if
    :: doing -> write_record()
    :: else
    fi
}

proctype Follower(byte me)
{
    byte head, tail_seen, doing, end, untold;
    bool has_lane, owes_gap, lost, is_over, is_cut;

    {
        do
        :: log_record()
        :: break
        od
    } unless { kill_follower == me };
    atomic {
        if
        :: kill_follower == me -> kill_follower = 0
        :: else
        fi;
        if
        :: lane_lock == me -> empty_buffer(); lane_lock = 0
        :: else
        fi;
        killed = killed + (doing -> 1 : 0);
        members = members - (IS_OWNER(me) -> 1 : 0);
        followers_begun = (followers_begun < me -> me : followers_begun);
        head = 0; tail_seen = 0; doing = 0; end = 0; untold = 0;
        has_lane = false; owes_gap = false; lost = false; is_over = false; is_cut = false
    }
}

/* ---- who cuts ---- */

inline cut_lane()
{
#ifdef MISTAKE_LIMIT_BEFORE_CUT
    limit = 0;
    cut = true
#else
    cut = true;
    limit = 0
#endif
}

/* An owner's finish; or its death before any step of it. */
proctype Owner(byte token)
{
    if
    :: withdrawn[token] = true;
        if
        :: follows == token -> cut_lane()
        :: follows != token
        :: goto dead
        fi;
        cut_complete[token] = true
    :: skip
    fi;
dead:
    members--
}

/* ---- the flusher ---- */

/* Within a step. */
inline append_slot(what)
{
    unit = what;
    assert(!settled);  /* I6: once more changes nothing */
    if
    :: IS_GAP(unit) -> log_gapped = (unit - GAP(0) > log_gapped -> unit - GAP(0) : log_gapped)
    :: else ->
        assert(!logged[unit]);  /* I3: none twice */
        logged[unit] = true
    fi;
    log_position++;
    unit = 0
}

inline publish()
{
    d_step { gapped = log_gapped; assert(tail <= log_position); tail = log_position }  /* I2 */
}

inline pass()
{
#ifdef MISTAKE_DRAIN_BEYOND_FINAL
    end = POSITIONS;
#else
    end = (final -> FINAL_POSITION(final) : POSITIONS);
#endif
    d_step {
        do
        :: log_position < end && slot[log_position] -> append_slot(slot[log_position])
        :: else -> break
        od;
        end = 0
    }
    publish()
}

inline note_drops()
{
    d_step { assert(!settled || told == dropped); told = dropped }  /* I6 */
}

/* `decided` is lane.final as it is afterwards. */
inline finalize()
{
    decided = final;
    if
    :: decided == 0 ->
#ifndef MISTAKE_TOLD_AFTER_FINAL
        note_drops();
#endif
#ifdef MISTAKE_FINAL_STORED
        final = FINAL(log_position, 1);
#else
        d_step {
            if
            :: final == 0 -> final = FINAL(log_position, 1)
            :: else -> decided = final
            fi
        }
#endif
#ifdef MISTAKE_TOLD_AFTER_FINAL
        note_drops();
#endif
    :: else
    fi;
    if
    :: decided && !BY_FLUSHER(decided) ->
#ifndef MISTAKE_TOLD_NOT_NOTED_AGAIN
        note_drops();
#endif
#ifndef MISTAKE_NO_SECOND_DRAIN
        pass()
#endif
    :: else
    fi;
    decided = 0
}

#ifdef MISTAKE_SETTLE_TELLS_DROPPED
#define TO_TELL dropped
#else
#define TO_TELL told
#endif

inline settle()
{
    if
    :: d_step { TO_TELL > log_gapped -> append_slot(GAP(TO_TELL)) }
        publish()
    :: else
    fi;
    settled = true
}

inline close_run()
{
    closed = true;
    cut_lane();
#ifndef MISTAKE_NO_BARRIER
    fence();
#endif
    close_complete = true;
    pass();
    finalize();
    settle()
}

proctype Flusher(byte life)
{
    byte end, decided, unit;

    {
        atomic { !flusher_lock && flushers_begun == life - 1 -> flushers_begun = life; flusher_lock = life }
        if
        :: finished
        :: else ->
            publish();
            do
            :: members && slot[log_position] -> pass()
            :: members == 0 -> break
            od;
            close_run();
            finished = true
        fi
    } unless { kill_flusher == life };
    atomic {
        if
        :: kill_flusher == life -> kill_flusher = 0
        :: else
        fi;
        if
        :: flusher_lock == life -> flusher_lock = 0
        :: else
        fi;
        end = 0; decided = 0; unit = 0
    }
}

/* ---- the books, when all have gone ---- */

inline check_books()
{
    d_step {
        unit = 1;
        do
        :: unit <= offered ->
            assert(!returned[unit] || logged[unit]);  /* I3: what returned is in the run */
            assert(!(late[unit] && logged[unit]));    /* I4: and is not counted as late besides */
            assert(!((gave_up[unit] || moved[unit]) && logged[unit]));
            assert(!(began_after_cut[unit] && logged[unit]));  /* what came after the end is not in the run */
            if
            :: gave_up[unit] -> given_up++
            :: !gave_up[unit] && !logged[unit] && !late[unit] && !moved[unit] -> missing++
            :: else
            fi;
            unit++
        :: else -> break
        od;
        assert(missing <= killed);  /* I4: what is neither was in flight at a death */
        assert(log_gapped + late_drops >= given_up);  /* I4: drops are told */
        assert(log_gapped + late_drops <= given_up + missing);  /* I4: and once */
        unit = 0; given_up = 0; missing = 0
    }
}

init {
    byte unit, given_up, missing;
    atomic {
        members = OWNERS + LAST_IS_OWNER;
        run Processor();
        unit = 1;
        do
        :: unit <= OWNERS -> run Owner(unit); unit++
        :: else -> break
        od;
        unit = 1;
        do
        :: unit <= FOLLOWERS -> run Follower(unit); unit++
        :: else -> break
        od;
        unit = 1;
        do
        :: unit <= FLUSHERS -> run Flusher(unit); unit++
        :: else -> break
        od;
        unit = 0;
        run Killer()
    }
    _nr_pr == 2 && buffered == NOTHING;
    check_books()
}
