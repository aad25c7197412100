/*
 * A model from NLTK's dicts, and the dicts from a model.
 */
#include "xtpy_model.h"

/* ---- from dicts ---- */

static int
add_classes(xt_build *build, PyObject *classes)
{
    int result = -1;
    PyObject *sorted = NULL, *unique = PySet_New(classes);
    sorted = unique != NULL ? PySequence_List(unique) : NULL;
    for (Py_ssize_t i = 0; sorted != NULL && i < PyList_GET_SIZE(sorted); i++) {
        if (!PyUnicode_Check(PyList_GET_ITEM(sorted, i))) {
            PyErr_Format(PyExc_TypeError, "classes: %R is no str", PyList_GET_ITEM(sorted, i));
            goto done;
        }
    }
    if (sorted == NULL || PyList_Sort(sorted) < 0) {
        goto done;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(sorted); i++) {
        xc_err err;
        xt_span name;
        PyObject *kept;
        if (xtpy_span(PyList_GET_ITEM(sorted, i), "classes", &name, &kept) < 0) {
            goto done;
        }
        xc_status rc = xt_build_class(build, name, &err);
        Py_DECREF(kept);
        if (rc != XC_OK) {
            xtpy_raise(&err);
            goto done;
        }
    }
    result = 0;
done:
    Py_XDECREF(unique);
    Py_XDECREF(sorted);
    return result;
}

/* The number of a class, or XT_NONE with an exception. */
static uint32_t
label_of(const xt_build *build, PyObject *name, const char *what, PyObject *whose)
{
    xt_span span;
    PyObject *kept;
    if (xtpy_span(name, what, &span, &kept) < 0) {
        return XT_NONE;
    }
    uint32_t label = xt_build_label(build, span);
    Py_DECREF(kept);
    if (label == XT_NONE) {
        PyErr_Format(PyExc_ValueError, "%s: %R of %R is not among the classes", what, name, whose);
    }
    return label;
}

/* These take a dict that does not change meanwhile: see xtpy_pairs(). */

static int
add_tagdict(xt_build *build, PyObject *tagdict)
{
    Py_ssize_t at = 0;
    PyObject *word, *tag;
    while (PyDict_Next(tagdict, &at, &word, &tag)) {
        xc_err err;
        xt_span span;
        PyObject *kept;
        uint32_t label = label_of(build, tag, "tagdict", word);
        if (label == XT_NONE || xtpy_span(word, "tagdict", &span, &kept) < 0) {
            return -1;
        }
        xc_status rc = xt_build_only(build, span, label, &err);
        Py_DECREF(kept);
        if (rc != XC_OK) {
            xtpy_raise(&err);
            return -1;
        }
    }
    return 0;
}

static int
add_weight(xt_build *build, PyObject *feature, PyObject *class, PyObject *weight)
{
    xc_err err;
    uint32_t label = label_of(build, class, "weights", feature);
    if (label == XT_NONE) {
        return -1;
    }
    if (!PyFloat_Check(weight) && !PyLong_Check(weight)) {
        PyErr_Format(PyExc_TypeError, "weights: %R of %R has %R, which is no number", class, feature, weight);
        return -1;
    }
    double value = PyFloat_Check(weight) ? PyFloat_AS_DOUBLE(weight) : PyLong_AsDouble(weight);
    if (value == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (xt_build_weight(build, label, value, &err) != XC_OK) {
        if (err.code == XC_BAD) {
            PyErr_Format(PyExc_ValueError, "weights: %R of %R has %R, which is not finite", class, feature, weight);
        }
        else {
            xtpy_raise(&err);
        }
        return -1;
    }
    return 0;
}

static int
add_row(xt_build *build, PyObject *feature, PyObject *row)
{
    PyObject *class, *weight;
    for (Py_ssize_t at = 0; PyDict_Next(row, &at, &class, &weight);) {
        if (add_weight(build, feature, class, weight) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
add_weights(xt_build *build, PyObject *weights)
{
    Py_ssize_t at = 0;
    PyObject *feature, *row;
    while (PyDict_Next(weights, &at, &feature, &row)) {
        xc_err err;
        xt_span name;
        PyObject *kept, *pairs;
        if (!PyDict_Check(row)) {
            PyErr_Format(PyExc_TypeError, "weights: what %R has is no dict", feature);
            return -1;
        }
        if (xtpy_span(feature, "weights", &name, &kept) < 0) {
            return -1;
        }
        xc_status rc = xt_build_feature(build, name, &err);
        Py_DECREF(kept);
        if (rc != XC_OK) {
            xtpy_raise(&err);
            return -1;
        }
        pairs = xtpy_pairs(row);
        int added = pairs == NULL ? -1 : add_row(build, feature, pairs);
        Py_XDECREF(pairs);
        if (added < 0) {
            return -1;
        }
    }
    return 0;
}

static int
add_all(xt_build *build, PyObject *weights, PyObject *tagdict, PyObject *classes)
{
    PyObject *features = xtpy_pairs(weights), *words = xtpy_pairs(tagdict);
    int added = features == NULL || words == NULL || add_classes(build, classes) < 0 || add_tagdict(build, words) < 0
                    ? -1
                    : add_weights(build, features);
    Py_XDECREF(features);
    Py_XDECREF(words);
    return added;
}

PyObject *
xtpy_build(PyObject *weights, PyObject *tagdict, PyObject *classes)
{
    xc_err err;
    size_t size = 0;
    PyObject *result = NULL;
    xt_build *build = xt_build_new();
    if (build == NULL) {
        return PyErr_NoMemory();
    }
    if (!PyDict_Check(weights) || !PyDict_Check(tagdict)) {
        PyErr_Format(PyExc_TypeError, "%s are to be a dict", PyDict_Check(weights) ? "tagdict" : "weights");
        goto done;
    }
    if (add_all(build, weights, tagdict, classes) < 0) {
        goto done;
    }
    if (xt_build_finish(build, &size, &err) != XC_OK) {
        xtpy_raise(&err);
        goto done;
    }
    result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (result != NULL) {
        xt_build_write(build, PyBytes_AS_STRING(result));
    }
done:
    xt_build_free(build);
    return result;
}

/* ---- to dicts ---- */

static PyObject *
tag_name(const xt_model *model, PyObject *tags, uint32_t tag)
{
    return tag < model->head->n_classes ? Py_NewRef(PyTuple_GET_ITEM(tags, tag))
                                        : xtpy_text(xt_mark(tag - model->head->n_classes));
}

/* names[row] = "name first second", or "name first" if there is no second. Takes both; -1 also if `first` is NULL. */
static int
name_row(PyObject *names, uint32_t row, unsigned slot, PyObject *first, PyObject *second)
{
    int rc = first == NULL ? -1 : 0;
    if (first != NULL && row != XT_NONE && PyList_GET_ITEM(names, row) == Py_None) {
        const char *start = (const char *)xt_feature_name(slot).at;
        PyObject *name = second != NULL ? PyUnicode_FromFormat("%s%U %U", start, first, second)
                                        : PyUnicode_FromFormat("%s%U", start, first);
        rc = name != NULL ? PyList_SetItem(names, row, name) : -1;
    }
    Py_XDECREF(first);
    Py_XDECREF(second);
    return rc;
}

static int
name_by_tags(const xt_model *model, PyObject *tags, PyObject *names)
{
    if (name_row(names, model->head->bias, XT_BIAS, PyUnicode_FromString(""), NULL) < 0) {
        return -1;
    }
    for (uint32_t tag = 0; tag < model->n_tags; tag++) {
        if (name_row(names, model->tag_rows[tag], XT_TAG_BEFORE, tag_name(model, tags, tag), NULL) < 0 ||
            name_row(names, model->tag_rows[model->n_tags + tag], XT_TAG_BEFORE_2, tag_name(model, tags, tag), NULL) <
                0) {
            return -1;
        }
    }
    for (uint32_t i = 0; i < model->head->n_pairs; i++) {
        const xt_pair *pair = &model->pairs[i];
        PyObject *first = tag_name(model, tags, pair->before);
        PyObject *second = tag_name(model, tags, pair->before_2);
        if (second == NULL) {
            Py_CLEAR(first);
        }
        if (name_row(names, pair->row, XT_TAG_PAIR, first, second) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
name_by_form(const xt_model *model, PyObject *tags, PyObject *names, const xt_form *form)
{
    int result = -1;
    PyObject *text = xtpy_text(xt_text_of(model, form->text));
    if (text == NULL) {
        return -1;
    }
    for (unsigned slot = 0; slot < XT_SLOTS; slot++) {
        if (name_row(names, form->rows[slot], slot, Py_NewRef(text), NULL) < 0) {
            goto done;
        }
    }
    for (uint32_t i = form->with_tag; i < form->with_tag + form->n_with_tag; i++) {
        PyObject *tag = tag_name(model, tags, model->with_tags[i]);
        if (name_row(names, model->with_rows[i], XT_WITH_TAG, tag, Py_NewRef(text)) < 0) {
            goto done;
        }
    }
    result = 0;
done:
    Py_DECREF(text);
    return result;
}

/* The text of each row's feature, as a list; None if a row has none. */
static PyObject *
row_names(const xt_model *model, PyObject *tags)
{
    PyObject *names = PyList_New((Py_ssize_t)model->head->n_rows);
    if (names == NULL) {
        return NULL;
    }
    for (uint32_t row = 0; row < model->head->n_rows; row++) {
        PyList_SET_ITEM(names, row, Py_NewRef(Py_None));
    }
    if (name_by_tags(model, tags, names) < 0) {
        goto failed;
    }
    for (uint32_t i = 0; i < model->head->n_forms; i++) {
        if (name_by_form(model, tags, names, &model->forms[i]) < 0) {
            goto failed;
        }
    }
    for (uint32_t i = 0; i < model->head->n_others; i++) {
        PyObject *text = xtpy_text(xt_text_of(model, model->others[i].text));
        if (text == NULL || PyList_SetItem(names, model->others[i].row, text) < 0) {
            goto failed;
        }
    }
    return names;
failed:
    Py_DECREF(names);
    return NULL;
}

static PyObject *
row_dict(const xt_model *model, PyObject *tags, uint32_t row)
{
    PyObject *dict = PyDict_New();
    for (uint32_t at = model->row_start[row]; dict != NULL && at < model->row_start[row + 1]; at++) {
        PyObject *weight = PyFloat_FromDouble(xt_weight(model, at));
        if (weight == NULL || PyDict_SetItem(dict, PyTuple_GET_ITEM(tags, model->labels[at]), weight) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(weight);
    }
    return dict;
}

PyObject *
xtpy_weights(const xt_model *model, PyObject *tags)
{
    PyObject *weights = PyDict_New(), *names = row_names(model, tags);
    if (weights == NULL || names == NULL) {
        goto failed;
    }
    for (uint32_t row = 0; row < model->head->n_rows; row++) {
        if (PyList_GET_ITEM(names, row) == Py_None) {
            PyErr_SetString(PyExc_ValueError, "tagger model: it has weights of no feature");
            goto failed;
        }
        PyObject *dict = row_dict(model, tags, row);
        int rc = dict != NULL ? PyDict_SetItem(weights, PyList_GET_ITEM(names, row), dict) : -1;
        Py_XDECREF(dict);
        if (rc < 0) {
            goto failed;
        }
    }
    Py_DECREF(names);
    return weights;
failed:
    Py_XDECREF(weights);
    Py_XDECREF(names);
    return NULL;
}

PyObject *
xtpy_tagdict(const xt_model *model, PyObject *tags)
{
    PyObject *tagdict = PyDict_New();
    for (uint32_t i = 0; tagdict != NULL && i < model->head->n_forms; i++) {
        const xt_form *form = &model->forms[i];
        if (form->only == XT_NONE) {
            continue;
        }
        PyObject *word = xtpy_text(xt_text_of(model, form->text));
        if (word == NULL || PyDict_SetItem(tagdict, word, PyTuple_GET_ITEM(tags, form->only)) < 0) {
            Py_CLEAR(tagdict);
        }
        Py_XDECREF(word);
    }
    return tagdict;
}
