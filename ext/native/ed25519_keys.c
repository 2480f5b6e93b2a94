#include "ed25519_keys.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { PLACES_MAX = 1 << 20, PREFETCH_AHEAD = 8, CACHE_LINE = 64 };

typedef struct {
    edwards_ready point;
    uint8_t public_key[32];
    uint8_t used;
} place;

struct assay_key_cache {
    pthread_mutex_t lock;
    uint8_t secret[ASSAY_KEY_CACHE_SECRET_SIZE];
    size_t count; /* a power of two, or 0 */
    place *places;
};

assay_key_cache *assay_key_cache_new(size_t places,
                                     const uint8_t secret[ASSAY_KEY_CACHE_SECRET_SIZE]) {
    assay_key_cache *cache = malloc(sizeof *cache);
    if (cache == NULL) return NULL;
    memcpy(cache->secret, secret, sizeof cache->secret);
    cache->places = NULL;
    cache->count = places > 0;
    while (cache->count < places && cache->count < PLACES_MAX) cache->count *= 2;
    /* Zeroed memory that is not touched costs nothing. */
    if (places > 0) cache->places = calloc(cache->count, sizeof *cache->places);
    if ((places > 0 && cache->places == NULL) || pthread_mutex_init(&cache->lock, NULL) != 0) {
        free(cache->places);
        free(cache);
        return NULL;
    }
    return cache;
}

void assay_key_cache_free(assay_key_cache *cache) {
    if (cache == NULL) return;
    pthread_mutex_destroy(&cache->lock);
    free(cache->places);
    free(cache);
}

uint64_t assay_key_cache_hash(const assay_key_cache *cache, const uint8_t public_key[32]) {
    const uint8_t *secret = cache->secret;
    assay_u128 hash = 0;
    for (int i = 0; i < 32; i += 16)
        hash += (assay_u128)(load_le64(public_key + i) + load_le64(secret + i)) *
                (load_le64(public_key + i + 8) + load_le64(secret + i + 8));
    return (uint64_t)(hash >> 64) ^ (uint64_t)hash;
}

static place *place_of(const assay_key_cache *cache, const uint8_t public_key[32]) {
    return &cache->places[assay_key_cache_hash(cache, public_key) & (cache->count - 1)];
}

static void prefetch(const place *ahead) {
    for (size_t offset = 0; offset < sizeof *ahead; offset += CACHE_LINE)
        __builtin_prefetch((const char *)ahead + offset);
}

void assay_key_cache_find(assay_key_cache *cache, size_t count, const uint8_t *const *public_keys,
                          edwards_ready *points, uint8_t *found) {
    memset(found, 0, count);
    if (cache->count == 0) return;
    pthread_mutex_lock(&cache->lock);
    for (size_t i = 0; i < count; i++) {
        if (i + PREFETCH_AHEAD < count) prefetch(place_of(cache, public_keys[i + PREFETCH_AHEAD]));
        const place *own = place_of(cache, public_keys[i]);
        if (!own->used || memcmp(own->public_key, public_keys[i], 32) != 0) continue;
        points[i] = own->point;
        found[i] = 1;
    }
    pthread_mutex_unlock(&cache->lock);
}

void assay_key_cache_keep(assay_key_cache *cache, size_t count, const uint8_t *const *public_keys,
                          const edwards_ready *points, const uint8_t *valid) {
    if (cache->count == 0) return;
    pthread_mutex_lock(&cache->lock);
    for (size_t i = 0; i < count; i++) {
        if (!valid[i]) continue;
        place *own = place_of(cache, public_keys[i]);
        own->point = points[i];
        memcpy(own->public_key, public_keys[i], 32);
        own->used = 1;
    }
    pthread_mutex_unlock(&cache->lock);
}
