/*
 * Takes that count only once replicas have them (the setting waitReplicas): Redis' WAIT, which
 * answers for all that its connection has written before.
 *
 * While WAIT waits, its connection answers nothing else. So it is asked only for takes that were
 * admitted, once for all of them that were answered meanwhile, and one question at a time: where
 * replicas are down a release is held up by one of them at most.
 */
#include "store/redis-store.h"
#include "util/alloc.h"

#define WAIT_LEAST_MS 50
#define WAIT_MOST_MS 1000

/* A question to the replicas of the server behind one connection. */
typedef struct inquiry {
    hf__redis_call call;
    hf__redis_instance *store;
    hf__node in_store;
    uint64_t connection;
    uint64_t ms;
    hf__node asked; /* tasks that it was sent for */
    hf__node later; /* that were answered since */
} inquiry;

static uint64_t wait_ms(const hf_op *op) {
    uint64_t ms = op->ttl_ms / 4;

    if (ms < WAIT_LEAST_MS) return WAIT_LEAST_MS;
    return ms < WAIT_MOST_MS ? ms : WAIT_MOST_MS;
}

/* A take that too few replicas have heard of is not one: the core undoes it. */
static void end_task(hf__redis_task *task, bool confirmed, uint64_t ms) {
    hf_op *op = task->op;

    if (!confirmed) {
        op->applied = false;
        hf__error_set(
            &op->error, HF_EUNAVAIL, HF_RETRYABLE | HF_OUTCOME_UNKNOWN,
            "fewer than %u of Redis' replicas confirmed in %u ms that \"%.*s\" was locked: "
            "see INFO replication, or ask for fewer with waitReplicas",
            (unsigned)task->store->wait_replicas, (unsigned)ms, hf__shown(op->keys[0]),
            op->keys[0].data);
    }
    hf__redis_end_task(task);
}

static hf_code encode_wait(hf__redis_call *call, const hf__redis_server *server, hf__buffer *out,
                           hf_error *error) {
    const inquiry *q = call->data;

    (void)server;
    (void)error;
    hf__resp_begin(out, 3);
    hf__resp_text(out, "WAIT");
    hf__resp_int(out, (int64_t)q->store->wait_replicas);
    hf__resp_int(out, (int64_t)q->ms);
    return HF_OK;
}

static void on_answer(hf__redis_call *call, const hf__reply *reply, const hf_error *error);

static void ask(inquiry *q, uint16_t slot) {
    const hf__redis_task *first = hf__of(hf__list_first(&q->asked), hf__redis_task, node);

    q->ms = wait_ms(first->op);
    q->call = (hf__redis_call){.encode = encode_wait, .done = on_answer, .data = q, .slot = slot};
    hf__redis_send(q->store->redis, &q->call);
}

static void on_answer(hf__redis_call *call, const hf__reply *reply, const hf_error *error) {
    inquiry *q = call->data;
    hf__redis_instance *s = q->store;
    /* On another connection it does not speak of these takes. */
    bool confirmed = error == NULL && reply->type == HF__REPLY_INTEGER && reply->integer >= 0 &&
                     (uint64_t)reply->integer >= s->wait_replicas &&
                     call->connection == q->connection;
    uint64_t ms = q->ms;
    hf__node ended;
    hf__node *node;

    hf__list_init(&ended);
    hf__list_append(&ended, &q->asked);
    hf__list_append(&q->asked, &q->later);
    if (hf__list_empty(&q->asked)) {
        hf__list_remove(&q->in_store);
        hf__free(s->base.env.allocator, q);
    } else {
        ask(q, call->slot);
    }
    while ((node = hf__list_pop(&ended)) != NULL)
        end_task(hf__of(node, hf__redis_task, node), confirmed, ms);
}

void hf__redis_confirm(hf__redis_task *task) {
    hf__redis_instance *s = task->store;
    inquiry *q;

    for (hf__node *node = s->inquiries.next; node != &s->inquiries; node = node->next) {
        q = hf__of(node, inquiry, in_store);
        if (q->connection != task->call.connection) continue;
        hf__list_remove(&task->node);
        hf__list_push(&q->later, &task->node);
        return;
    }
    q = hf__zalloc(s->base.env.allocator, sizeof *q);
    if (q == NULL) {
        end_task(task, false, 0);
        return;
    }
    q->store = s;
    q->connection = task->call.connection;
    hf__list_init(&q->asked);
    hf__list_init(&q->later);
    hf__list_push(&s->inquiries, &q->in_store);
    hf__list_remove(&task->node);
    hf__list_push(&q->asked, &task->node);
    ask(q, task->call.slot);
}
