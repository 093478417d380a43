#include "core/store.h"

#include "util/alloc.h"

#include <assert.h>
#include <string.h>

hf_store *hf__store_new(const hf_store_vtable *vt, const hf__store_env *env, hf_error *error) {
    hf_store *store = hf__zalloc(env->allocator, vt->size);

    if (store == NULL) {
        hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
        return NULL;
    }
    store->vt = vt;
    store->env = *env;
    store->caps = vt->caps;
    store->max_ttl_ms = HF_TTL_MAX;
    if (vt->init(store, error) != HF_OK) {
        hf__free(env->allocator, store);
        return NULL;
    }
    return store;
}

void hf__store_free(hf_store *store) {
    const hf_allocator *allocator = store->env.allocator;

    store->vt->fini(store);
    hf__free(allocator, store);
}

bool hf__setting_get(const hf__store_env *env, const char *name, hf_slice *value) {
    for (size_t i = 0; env->settings != NULL && i < env->settings->n; i++) {
        const hf_setting *each = &env->settings->items[i];
        if (!hf__slice_is(each->name, name)) continue;
        *value = each->value;
        return true;
    }
    return hf__url_param_get(env->url, name, value);
}

bool hf__has_word(const char *words, hf_slice word) {
    while (*words != '\0') {
        size_t len = strcspn(words, " ");
        if (hf__slice_equal((hf_slice){words, len}, word)) return true;
        words += len;
        words += strspn(words, " ");
    }
    return false;
}

bool hf__store_takes(const hf_store_vtable *vt, hf_slice name) {
    return vt->params != NULL && hf__has_word(vt->params, name);
}

typedef void (*verb_fn)(hf_store *store, hf_op *ops);

static verb_fn function_of(const hf_store_vtable *vt, hf_verb verb) {
    switch (verb) {
    case HF_TAKE: return vt->take;
    case HF_KEEP: return vt->keep;
    case HF_DROP: return vt->drop;
    case HF_GET: return vt->get;
    case HF_PUT: return vt->put;
    case HF_DEL: return vt->del;
    case HF_ADD: return vt->add;
    case HF_LIST: return vt->list;
    case HF_SWEEP: return vt->sweep;
    case HF_OPEN: return vt->open;
    case HF_CLOSE: return vt->close;
    }
    return NULL;
}

void hf__store_submit(hf_store *store, hf_op *ops) {
    verb_fn submit;

    assert(ops != NULL);
    submit = function_of(store->vt, (hf_verb)ops->verb);
    assert(submit != NULL);
    for (hf_op *op = ops; op != NULL; op = op->next) {
        assert(op->verb == ops->verb && op->phase == HF__OP_FREE);
        assert(op->out.data == NULL && op->rows == NULL);
        op->phase = HF__OP_PENDING;
        op->allocator = store->env.allocator;
    }
    submit(store, ops);
}

bool hf__store_has(const hf_store_vtable *vt, hf_verb verb) {
    return function_of(vt, verb) != NULL;
}
