/*
 * A small model of a quorum: three nodes that do what the scripts in Redis do, and up to three
 * clients that go by the decisions of csrc/store/quorum-round.h and quorum-standing.h themselves.
 * A world is a plain value. What can happen next is a list of actions; the search
 * (support-quorum-search.h) tries them all.
 *
 * Time goes in ticks. Connections keep their order; a message may lie in one for ever. One whose
 * connection was given up may still arrive after those on the next (a straggler), and then nobody
 * hears the answer.
 *
 * What is left out, because something else that is tried comes to the same or to worse:
 *   - an answer that arrives later within its tick: its client would only hold later. So answers
 *     arrive with the request, or first thing in a later tick.
 *   - a refusal that is late: a request that is late can come to the same.
 *   - a drop that waits: it frees later, which lets others do less.
 *   - a single node given up: who counts on without it has not heard of it yet. So all that are
 *     silent are given up at once.
 *   - looks at the clock of a node that votes: what they would show is left for the next take.
 *   - clients that are alike and begin in another order: they are the same, renamed. Nodes are
 *     sorted for the same reason.
 */
#ifndef HF_TEST_SUPPORT_QUORUM_MODEL_H
#define HF_TEST_SUPPORT_QUORUM_MODEL_H

#include "store/quorum-round.h"
#include "store/quorum-standing.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum {
    QM_NODES = 3,
    QM_CLIENTS = 3,
    QM_ATTEMPTS = 4, /* of one client, at most */
    QM_TOKENS = 1 + QM_CLIENTS * QM_ATTEMPTS,
    QM_QUEUE = 5,
    QM_STRAGGLERS = 2,
    QM_START_MS = 60000, /* so that nothing before it is below 0 */
    QM_FEW = 1000000,    /* below that a fence has been counted up from 0, not from a clock */
    QM_ANY = 255         /* late answers: they are not counted */
};

/* ---------------------------------------------------------------- what is explored */

/* Rules that the model itself can leave out, to show that what then goes wrong is found. */
typedef enum qm_fault {
    QM_UNMARKED = 1u << 0,     /* nodes vote without a look at their marker */
    QM_HALF = 1u << 1,         /* n / 2 nodes are a majority */
    QM_NO_MARGIN = 1u << 2,    /* clocks are trusted to be exact */
    QM_BLIND_DROP = 1u << 3,   /* a drop frees whoever holds */
    QM_NO_CLOCKS = 1u << 4,    /* nobody looks at the clocks of the nodes */
    QM_NO_EPOCH = 1u << 5,     /* a node counts on from what it finds in its memory */
    QM_ONE_RAISES = 1u << 6,   /* a fence counts as written once one node has it */
    QM_SHORT_CLOCKS = 1u << 7, /* what is known of a node's clock ends with the connection */
    QM_BLIND_KEEP = 1u << 8,   /* clocks are not looked at in renewals */
    /* and assumptions */
    QM_ANY_LOSS = 1u << 9,  /* a majority may be without its markers at the same time */
    QM_ANY_JUMP = 1u << 10, /* a clock may jump, and jump back before anybody has looked */
    QM_SAME_JUMP = 1u << 11 /* all clocks of which a client knows may jump by the same */
} qm_fault;

typedef enum qm_loss {
    QM_EMPTY = 0, /* started again, with nothing */
    QM_OLD,       /* started again, with an old copy of its memory */
    QM_WIPED,     /* emptied while it runs */
    QM_LOSSES
} qm_loss;

typedef struct qm_action {
    uint8_t kind; /* qm_kind */
    uint8_t client;
    uint8_t node;
    uint8_t arg;
} qm_action;

/* What there is, and how much of what may happen. */
typedef struct qm_setup {
    uint8_t clients;
    uint8_t permits; /* of shared locks; 0: any number */
    uint8_t rules;   /* HF__RULE_* */
    uint32_t faults; /* qm_fault */
    bool fencing;
    bool uncounted;             /* no node has a counter yet */
    bool shared[QM_CLIENTS];    /* what this client asks for */
    int32_t ttl_ms[QM_CLIENTS]; /* of its leases */
    int32_t max_ms[QM_CLIENTS]; /* its maxTtl */
    int32_t tick_ms[2];         /* in turn */
    int32_t rate[QM_NODES];     /* of a node's clock, in parts of 1000; 0: exact */
    int32_t apart_ms[QM_NODES]; /* how far a clock is ahead from the beginning */
    int32_t jump_ms;            /* how far a clock jumps */
    bool prompt;                /* errands are answered at once */
    bool blank;                 /* begins before the quorum was founded */
    bool ordered;               /* what happens in one tick has an order in time */
    uint8_t apart[QM_CLIENTS];  /* bits of nodes that it is not connected to at first */
    uint8_t attempts;           /* of each client */
    uint8_t renewals;           /* of each client */
    uint8_t late;               /* answers that arrive in a later tick */
    uint8_t links;              /* connections that break without a crash */
    uint8_t crashes;            /* of nodes, with loss of memory */
    uint8_t losses;             /* bits 1 << qm_loss */
    uint8_t jumps;              /* of clocks */
    uint8_t saves;              /* an old copy may be newer than the beginning */
    uint8_t deaths;             /* of clients */
    uint8_t repeats;            /* stragglers that arrive twice */
    const qm_action *beginning; /* what has happened already; ends with QM_NOTHING */
} qm_setup;

/* ---------------------------------------------------------------- the world */

typedef struct qm_marker {
    uint8_t run; /* 0: there is none */
    int32_t max_ms;
    int32_t until_ms; /* by the node's clock; 0: it votes */
} qm_marker;

/* What a node has in its memory. */
typedef struct qm_memory {
    qm_marker marker;
    uint8_t epoch;               /* the run that counted last */
    uint32_t counter;            /* of takes */
    int32_t until_ms[QM_TOKENS]; /* leases, by the node's clock; 0: none */
} qm_memory;

typedef struct qm_node {
    uint8_t run;
    int32_t rate;
    int32_t offset_ms; /* of its clock */
    qm_memory memory;
    qm_memory disk;
} qm_node;

typedef enum qm_ask { QM_ASK_TAKE = 1, QM_ASK_RAISE, QM_ASK_KEEP, QM_ASK_DROP, QM_ASK_MARK } qm_ask;

/* A request, and once it is answered the answer. */
typedef struct qm_message {
    uint8_t ask; /* qm_ask */
    uint8_t token;
    uint8_t errand; /* hf__errand, of QM_ASK_MARK */
    bool awaited;   /* somebody wants the answer */
    bool answered;
    bool aged;        /* in an earlier tick */
    bool unmarked;    /* answer: the marker was another one */
    uint8_t ballot;   /* answer: hf__ballot */
    uint32_t fence;   /* to be written; answer: proposed */
    uint32_t seed;    /* what a counter that is lost goes on from */
    qm_marker marker; /* expected; answer to an errand: what it is now */
    int32_t span_ms;  /* maxTtl of an errand */
    int32_t clock_ms; /* answer */
    uint64_t sent_ns;
} qm_message;

typedef struct qm_link {
    bool up;
    uint8_t n_queue, n_stragglers;
    hf__member_state member;
    hf__node_clock clock;
    qm_message queue[QM_QUEUE];
    qm_message stragglers[QM_STRAGGLERS];
} qm_link;

typedef enum qm_phase { QM_IDLE = 0, QM_TAKING, QM_KEEPING } qm_phase;

typedef struct qm_client {
    uint8_t phase; /* qm_phase */
    bool holds;
    uint8_t token;
    uint8_t attempts, renewals; /* used */
    int32_t sent_ms;            /* when its round began */
    int32_t bound_ms;           /* until when it holds */
    hf__round round;
} qm_client;

typedef struct qm_world {
    int32_t now_ms;
    uint8_t order; /* of instants within this tick */
    uint8_t ticks; /* parity */
    bool fresh;    /* nothing has happened in this tick but that late answers arrived */
    uint8_t late;  /* answers, used */
    uint8_t links, crashes, jumps, saves, deaths, repeats; /* used */
    bool cut;       /* a queue was too short: the action does not count */
    uint8_t broken; /* qm_broken */
    uint32_t last;  /* the greatest fence of any lock that was won */
    uint32_t last_exclusive;
    qm_node nodes[QM_NODES];
    qm_client clients[QM_CLIENTS];
    qm_link link[QM_CLIENTS][QM_NODES];
} qm_world;

/* What must hold, and does not. */
typedef enum qm_broken {
    QM_SOUND = 0,
    QM_TWO_WRITERS,
    QM_READER_AND_WRITER,
    QM_TOO_MANY,
    QM_FENCE_BACK,
    QM_BROKEN
} qm_broken;

const char *qm_broken_text(qm_broken broken);

/* What a search has come by: it would prove little otherwise. */
enum {
    QM_SAW_WON = 1u << 0,
    QM_SAW_NEXT = 1u << 1, /* a fence after another */
    QM_SAW_RENEWED = 1u << 2,
    QM_SAW_REPAIRED = 1u << 3, /* a node granted the repair of a lease */
    QM_SAW_LATE = 1u << 4,     /* a round lost for its time was over */
    QM_SAW_BARRED = 1u << 5,
    QM_SAW_BACK = 1u << 6, /* a vote of a node that had lost its memory */
    QM_SAW_JUMP = 1u << 7, /* a clock's jump noticed */
    QM_SAW_FOUNDED = 1u << 8,
    QM_SAW_TOGETHER = 1u << 9, /* two readers at once */
    QM_SAW_UNMARKED = 1u << 10 /* a vote refused for its marker */
};

/* One action in the making. */
typedef struct qm_scene {
    const qm_setup *setup;
    qm_world *world;
    uint32_t saw;
    bool pointless;          /* out: comes to nothing that another action does not come to */
    FILE *story;             /* what happens is told there; or NULL */
    uint8_t names[QM_NODES]; /* of nodes there */
} qm_scene;

/* ---------------------------------------------------------------- nodes */

int32_t qm_clock_ms(const qm_world *w, uint8_t node);
bool qm_same_marker(const qm_marker *a, const qm_marker *b);
/* Takes leases away whose time is over. */
void qm_expire(qm_world *w, uint8_t node);
/* Does what is asked for, and makes the message an answer. */
void qm_serve(qm_scene *s, uint8_t node, qm_message *message);
void qm_lose(qm_scene *s, uint8_t node, qm_loss loss);

/* ---------------------------------------------------------------- clients */

uint64_t qm_now_ns(const qm_world *w);
uint64_t qm_bound_ns(const qm_setup *setup, uint8_t client, int32_t sent_ms);
int32_t qm_ttl_ms(const qm_setup *setup, uint8_t token);
static inline uint8_t qm_owner(uint8_t token) {
    return (uint8_t)((token - 1) / QM_ATTEMPTS);
}
qm_marker qm_read_marker(const hf__marker *from);
hf__marker qm_write_marker(const qm_marker *from);

void qm_begin_take(qm_scene *s, uint8_t client);
void qm_begin_keep(qm_scene *s, uint8_t client);
void qm_release(qm_scene *s, uint8_t client);
/* Gives up all nodes that have not answered. */
void qm_abandon(qm_scene *s, uint8_t client);
/* The first answer in the connection arrives. */
void qm_hear(qm_scene *s, uint8_t client, uint8_t node);
void qm_miss(qm_scene *s, uint8_t client, uint8_t node);
void qm_link_down(qm_scene *s, uint8_t client, uint8_t node);
void qm_link_up(qm_scene *s, uint8_t client, uint8_t node);
/* What is due with the time that has passed. */
void qm_client_ticks(qm_scene *s, uint8_t client);
/* All that it knew is forgotten; what it has sent is not. */
void qm_client_dies(qm_scene *s, uint8_t client);

/* ---------------------------------------------------------------- actions */

typedef enum qm_kind {
    QM_NOTHING = 0,
    QM_TICK,
    QM_TAKE,
    QM_KEEP,
    QM_RELEASE,
    QM_ABANDON,
    QM_DIE,
    QM_STEP,      /* the next request is served, and its answer heard if none is before it */
    QM_SERVE,     /* served only: the answer is late */
    QM_HEAR,      /* the next answer arrives */
    QM_STRAGGLER, /* arrives; arg 1: and once more, later */
    QM_LINK,      /* connects, again if need be */
    QM_MISS,      /* an errand is given up */
    QM_CRASH,     /* arg: qm_loss */
    QM_JUMP,      /* of a clock; arg 1: back */
    QM_SAVE,      /* the memory is copied to the disk */
    QM_KINDS
} qm_kind;

void qm_begin(const qm_setup *setup, qm_world *w);
bool qm_is_possible(const qm_setup *setup, const qm_world *w, qm_action action);
/* The next action that is possible after `*action` (QM_NOTHING: the first); false: none. */
bool qm_next(const qm_setup *setup, const qm_world *w, qm_action *action);
/* Does it. The world may then be cut, or broken. */
void qm_act(qm_scene *s, qm_action action);

/* ---------------------------------------------------------------- packed */

enum { QM_PACKED_MAX = 2048 };

/* Packs a world, so that all that differ in nothing that matters become one: times are told from
 * now on, and nodes are sorted. `order` (or NULL) gets which node of `w` each became. */
size_t qm_pack(const qm_setup *setup, qm_world *w, uint8_t *out, uint8_t *order);
void qm_unpack(const qm_setup *setup, qm_world *w, const uint8_t *in);

#endif
