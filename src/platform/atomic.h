/* Words that threads share. Each is a struct of its own, so that plain access does not compile; every
   operation is sequentially consistent unless its name says `relaxed` (counters, averages, and hints that
   are looked at again under something stronger) or `release`. */
#ifndef FASTWSGI_ATOMIC_H
#define FASTWSGI_ATOMIC_H

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#define CACHE_LINE 64

typedef struct { _Atomic uint64_t value; } atomic_word_t;
typedef struct { _Atomic uint64_t value; char pad[CACHE_LINE - sizeof(uint64_t)]; } atomic_line_t;
typedef struct { _Atomic(void *) value; } atomic_pointer_t;
typedef struct { _Atomic(void *) value; char pad[CACHE_LINE - sizeof(void *)]; } atomic_head_t;

static inline uint64_t word_load(atomic_word_t *word) { return atomic_load(&word->value); }
static inline void word_store(atomic_word_t *word, uint64_t value) { atomic_store(&word->value, value); }
static inline uint64_t word_or(atomic_word_t *word, uint64_t bits) { return atomic_fetch_or(&word->value, bits); }
static inline uint64_t word_swap(atomic_word_t *word, uint64_t value) { return atomic_exchange(&word->value, value); }
static inline int word_replace(atomic_word_t *word, uint64_t from, uint64_t to) {
    return atomic_compare_exchange_strong(&word->value, &from, to);
}
static inline uint64_t word_load_relaxed(atomic_word_t *word) {
    return atomic_load_explicit(&word->value, memory_order_relaxed);
}
static inline void word_store_relaxed(atomic_word_t *word, uint64_t value) {
    atomic_store_explicit(&word->value, value, memory_order_relaxed);
}
/* Seen by whoever loads it only after what was stored before it. */
static inline void word_store_release(atomic_word_t *word, uint64_t value) {
    atomic_store_explicit(&word->value, value, memory_order_release);
}
/* For a counter with one writer at a time and readers that only sum: no locked instruction. */
static inline void word_count(atomic_word_t *word, int64_t by) {
    word_store_relaxed(word, word_load_relaxed(word) + (uint64_t)by);
}

static inline void word_add(atomic_word_t *word, int64_t by) { atomic_fetch_add(&word->value, (uint64_t)by); }

/* Text that is read while it may change, between two looks at a word that says whether it did (a sequence lock): kept in
   whole words, so that the reader races with nothing. What is written is seen after what was stored before it, and what
   is read before what is loaded after it. */
static inline void words_store(atomic_word_t *words, const char *text, size_t size) {
    uint64_t word = 0;
    for (; size >= sizeof word; text += sizeof word, size -= sizeof word, words++) {
        memcpy(&word, text, sizeof word);
        atomic_store_explicit(&words->value, word, memory_order_release);
    }
    if (size) {
        word = 0;
        memcpy(&word, text, size);
        atomic_store_explicit(&words->value, word, memory_order_release);
    }
}
/* The same, of text that may be read to the end of its last word. */
static inline void words_store_whole(atomic_word_t *words, const char *text, size_t size) {
    uint64_t word;
    for (size_t i = 0; i < size; i += sizeof word, words++) {
        memcpy(&word, text + i, sizeof word);
        atomic_store_explicit(&words->value, word, memory_order_release);
    }
}
static inline void words_load(char *text, atomic_word_t *words, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint64_t word = atomic_load_explicit(&words[i].value, memory_order_acquire);
        memcpy(text + i * sizeof word, &word, sizeof word);
    }
}

static inline uint64_t line_load(atomic_line_t *line) { return atomic_load(&line->value); }
static inline void line_store(atomic_line_t *line, uint64_t value) { atomic_store(&line->value, value); }
static inline int line_replace(atomic_line_t *line, uint64_t from, uint64_t to) {
    return atomic_compare_exchange_strong(&line->value, &from, to);
}

static inline void *pointer_load_relaxed(atomic_pointer_t *pointer) {
    return atomic_load_explicit(&pointer->value, memory_order_relaxed);
}
static inline void pointer_store_relaxed(atomic_pointer_t *pointer, void *value) {
    atomic_store_explicit(&pointer->value, value, memory_order_relaxed);
}

/* A stack that many push to and one empties at once. */
static inline void *head_load(atomic_head_t *head) { return atomic_load(&head->value); }
static inline void *head_take(atomic_head_t *head) { return atomic_exchange(&head->value, (void *)0); }
static inline void head_push(atomic_head_t *head, void *item, void **next) {
    void *top = atomic_load_explicit(&head->value, memory_order_relaxed);
    do {
        *next = top;
    } while (!atomic_compare_exchange_weak(&head->value, &top, item));
}

#endif
