#include "tally.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#define FIRST_SLOTS 64

struct slot {
	char *line;
	unsigned long count;
};

/* Open addressing; the number of slots is a power of two, and at most three of four are taken. */
struct tally {
	struct slot *slots;
	size_t slot_count;
	size_t size;
};

/* FNV-1a, 64 bits. */
static unsigned long long hash(const char *bytes, size_t length)
{
	unsigned long long value = 0xcbf29ce484222325ULL;

	for (size_t i = 0; i < length; i++)
		value = (value ^ (unsigned char)bytes[i]) * 0x100000001b3ULL;
	return value;
}

/* The slot that holds the line, or the free one where it belongs. */
static struct slot *find(struct slot *slots, size_t slot_count, const char *line, size_t length)
{
	size_t i = hash(line, length) & (slot_count - 1);

	while (slots[i].line != NULL) {
		if (strlen(slots[i].line) == length && memcmp(slots[i].line, line, length) == 0)
			break;
		i = (i + 1) & (slot_count - 1);
	}
	return &slots[i];
}

static int grow(struct tally *table)
{
	size_t slot_count = table->slot_count * 2;
	struct slot *slots = calloc(slot_count, sizeof *slots);

	if (slots == NULL)
		return -1;
	for (size_t i = 0; i < table->slot_count; i++) {
		const struct slot *old = &table->slots[i];

		if (old->line != NULL)
			*find(slots, slot_count, old->line, strlen(old->line)) = *old;
	}
	free(table->slots);
	table->slots = slots;
	table->slot_count = slot_count;
	return 0;
}

struct tally *tally_new(void)
{
	struct tally *table = calloc(1, sizeof *table);

	if (table == NULL)
		return NULL;
	table->slot_count = FIRST_SLOTS;
	table->slots = calloc(table->slot_count, sizeof *table->slots);
	if (table->slots == NULL) {
		free(table);
		return NULL;
	}
	return table;
}

void tally_free(struct tally *table)
{
	if (table == NULL)
		return;
	for (size_t i = 0; i < table->slot_count; i++)
		free(table->slots[i].line);
	free(table->slots);
	free(table);
}

int tally_add(struct tally *table, const char *line, size_t length)
{
	struct slot *slot;

	/* A line ends at its first null byte: it is text. */
	length = strnlen(line, length);
	if ((table->size + 1) * 4 > table->slot_count * 3 && grow(table) != 0)
		return -1;
	slot = find(table->slots, table->slot_count, line, length);
	if (slot->line == NULL) {
		slot->line = strndup(line, length);
		if (slot->line == NULL)
			return -1;
		table->size++;
	}
	slot->count++;
	return 0;
}

int tally_read(struct tally *table, FILE *stream)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t length;
	int result = 0;

	errno = 0;
	while (result == 0 && (length = getline(&line, &room, stream)) != -1) {
		if (length > 0 && line[length - 1] == '\n')
			length--;
		result = tally_add(table, line, (size_t)length);
	}
	free(line);
	return result != 0 || ferror(stream) ? -1 : 0;
}

size_t tally_size(const struct tally *table)
{
	return table->size;
}

static int by_count(const void *left, const void *right)
{
	const struct tally_entry *a = left;
	const struct tally_entry *b = right;

	if (a->count != b->count)
		return a->count < b->count ? 1 : -1;
	return strcmp(a->line, b->line);
}

struct tally_entry *tally_sorted(const struct tally *table)
{
	struct tally_entry *entries = calloc(table->size + 1, sizeof *entries);
	size_t found = 0;

	if (entries == NULL)
		return NULL;
	for (size_t i = 0; i < table->slot_count; i++) {
		const struct slot *slot = &table->slots[i];

		if (slot->line != NULL)
			entries[found++] = (struct tally_entry){ slot->line, slot->count };
	}
	qsort(entries, found, sizeof *entries, by_count);
	return entries;
}

const char *tally_version(void)
{
	return TALLY_VERSION;
}
