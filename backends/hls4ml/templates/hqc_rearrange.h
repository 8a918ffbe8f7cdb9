#ifndef HQC_REARRANGE_H_
#define HQC_REARRANGE_H_

#include "nnet_common.h"

namespace nnet {

struct hqc_rearrange_config {
    static const unsigned io_type = io_parallel;
};

// res[i] is element table[i] of the sources, one behind the other; positions behind the last stand
// for fill. With constant positions this is wiring.
template <class data_T, class res_T, typename CONFIG_T>
void hqc_rearrange(data_T data[CONFIG_T::n_in1], res_T res[CONFIG_T::n_out],
                   typename CONFIG_T::table_t table[CONFIG_T::n_out], typename CONFIG_T::fill_t fill[1]) {
    #pragma HLS PIPELINE
    #pragma HLS ARRAY_PARTITION variable=table complete

Elements:
    for (unsigned ii = 0; ii < CONFIG_T::n_out; ii++) {
        #pragma HLS UNROLL
        const unsigned from = table[ii].to_uint();
        if (from < CONFIG_T::n_in1)
            res[ii] = data[from];
        else
            res[ii] = fill[0];
    }
}

template <class data1_T, class data2_T, class res_T, typename CONFIG_T>
void hqc_join(data1_T data1[CONFIG_T::n_in1], data2_T data2[CONFIG_T::n_in2], res_T res[CONFIG_T::n_out],
              typename CONFIG_T::table_t table[CONFIG_T::n_out], typename CONFIG_T::fill_t fill[1]) {
    #pragma HLS PIPELINE
    #pragma HLS ARRAY_PARTITION variable=table complete

Elements:
    for (unsigned ii = 0; ii < CONFIG_T::n_out; ii++) {
        #pragma HLS UNROLL
        const unsigned from = table[ii].to_uint();
        if (from < CONFIG_T::n_in1)
            res[ii] = data1[from];
        else if (from < CONFIG_T::n_in1 + CONFIG_T::n_in2)
            res[ii] = data2[from - CONFIG_T::n_in1];
        else
            res[ii] = fill[0];
    }
}

} // namespace nnet

#endif
