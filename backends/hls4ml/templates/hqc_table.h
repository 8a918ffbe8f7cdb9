#ifndef HQC_TABLE_H_
#define HQC_TABLE_H_

#include "nnet_common.h"

namespace nnet {

struct hqc_table_config {
    static const unsigned io_type = io_parallel;
};

// Where the table has the result for element ii: its code is counted from the first, and step is a
// power of two, so the product is wiring.
template <class T, typename CONFIG_T>
unsigned hqc_table_index(const T &x, unsigned ii, typename CONFIG_T::step_t step[1]) {
    #pragma HLS INLINE
    const unsigned code = unsigned((x * step[0]).to_int() - int(CONFIG_T::first));
    return ii % CONFIG_T::n_rows * CONFIG_T::n_codes + code;
}

// res is what the table holds for the code of data. Rows of the table: one for all elements, one per
// channel (channels come last), or one per element.
template <class data_T, class res_T, typename CONFIG_T>
void hqc_table(data_T data[CONFIG_T::n_in], res_T res[CONFIG_T::n_in],
               typename CONFIG_T::table_t table[CONFIG_T::n_rows * CONFIG_T::n_codes],
               typename CONFIG_T::step_t step[1]) {
    #pragma HLS PIPELINE

Elements:
    for (unsigned ii = 0; ii < CONFIG_T::n_in; ii++) {
        res[ii] = table[hqc_table_index<data_T, CONFIG_T>(data[ii], ii, step)];
    }
}

template <class data_T, class res_T, typename CONFIG_T, class in_S, class out_S>
void hqc_table_stream(in_S &data, out_S &res, typename CONFIG_T::table_t table[CONFIG_T::n_rows * CONFIG_T::n_codes],
                      typename CONFIG_T::step_t step[1]) {
Packets:
    for (unsigned ii = 0; ii < CONFIG_T::n_in / data_T::size; ii++) {
        #pragma HLS PIPELINE
        const data_T x = data.read();
        res_T packet;
    Elements:
        for (unsigned jj = 0; jj < data_T::size; jj++) {
            #pragma HLS UNROLL
            const unsigned at = ii * data_T::size + jj;
            packet[jj] = table[hqc_table_index<typename data_T::value_type, CONFIG_T>(x[jj], at, step)];
        }
        res.write(packet);
    }
}

} // namespace nnet

#endif
